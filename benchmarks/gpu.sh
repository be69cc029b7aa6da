#!/usr/bin/env bash
# benchmarks/gpu.py on one GPU, with whatever Python is there: it must have JAX for CUDA, and torch for the yardstick beside it.
#
#     [WHEELS=folder] [PYTHON=python3] benchmarks/gpu.sh [--out=gpu.json] [--minutes=25] [--models=llama,phi] [--parts=...] [--small]
#
# WHEELS: wheels of what else is missing, for a machine without a network. They go into a folder of their own for the time of the run; the machine's
# packages stay as they are. For Python 3.12 the folder is made with
#     pip wheel --no-deps -w FOLDER ml-collections rouge-score nltk defusedxml
#     pip download --no-deps --only-binary=:all: --python-version 3.12 -d FOLDER --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 rapidfuzz
set -euo pipefail

die() {
  echo "gpu.sh: $*" >&2
  exit 2
}

[[ ${WHEELS:-} ]] && WHEELS=$(realpath "$WHEELS") # before the folder changes
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
# By default JAX takes three quarters of the device; the published batch wants more of an H100.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.92}

if [[ ${WHEELS:-} ]]; then
  compgen -G "$WHEELS/*.whl" >/dev/null || die "WHEELS=$WHEELS: holds no wheels"
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
fi
why=$("$python" -c 'import nltk.stem.porter, pmc_jax.collapse, rich' 2>&1) || die "$python: ${why##*$'\n'}; put wheels of what is missing into a folder and set WHEELS"
"$python" benchmarks/gpu.py "$@"
