#!/usr/bin/env bash
# benchmarks/gpu.py on one GPU, with whatever Python is there: JAX for CUDA must be installed, and torch for the yardstick beside it.
#
#     [WHEELS=folder] [PYTHON=python3] benchmarks/gpu.sh [--out=gpu.json] [--minutes=25] [--models=llama,phi] [--parts=...] [--small]
#
# WHEELS: a folder of wheels of what else is missing there, for a machine without a network: they are put into a folder of their own, and the
# machine's packages stay as they are. make it with: pip download --no-deps -d FOLDER ml-collections rouge-score nltk rapidfuzz tensorboardX datasets
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
# By default JAX takes three quarters of the device; the published batch wants more of an H100.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.92}

if [[ ${WHEELS:-} ]]; then
  [[ -d $WHEELS ]] || { echo "gpu.sh: WHEELS=$WHEELS: no such folder" >&2; exit 2; }
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --find-links "$WHEELS" --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
fi
"$python" -c 'import jax, ml_collections, rouge_score, rapidfuzz, tokenizers, transformers' || {
  echo "gpu.sh: the packages named above are missing: put their wheels into a folder and set WHEELS=folder" >&2
  exit 2
}
"$python" benchmarks/gpu.py "$@"
