#!/usr/bin/env bash
# Makes one host ready, run there out of the copied checkout by tpu_vm.sh and ssh.sh: the package in .venv/, and the
# shared folder at /data. Doing it again changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

extra='' bucket='' nfs=''
for arg; do
  case $arg in
    --extra=*) extra=${arg#*=} ;;
    --bucket=*) bucket=${arg#*=} ;;
    --nfs=*) nfs=${arg#*=} ;;
    *)
      echo "setup_host.sh: unknown argument '$arg': --extra=tpu|cuda [--bucket=NAME | --nfs=SERVER:/SHARE]" >&2
      exit 2
      ;;
  esac
done

# Images bring Pythons older than the 3.11 that pmc_jax needs (TPU VMs: 3.10); uv fetches one of its own.
export PATH=$HOME/.local/bin:$PATH
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[[ -x .venv/bin/python ]] || uv venv --python 3.12 .venv
uv pip install --quiet --python .venv/bin/python --editable ".${extra:+[$extra]}"

# A token for gated checkpoints comes as a file: on a command line every user of the host would see it.
if [[ -f ~/hf_token ]]; then
  mkdir -p ~/.cache/huggingface
  install -m 600 ~/hf_token ~/.cache/huggingface/token
  rm ~/hf_token
fi

[[ $bucket$nfs ]] || exit 0
! mountpoint -q /data || exit 0
sudo mkdir -p /data
sudo chown "$(id -u):$(id -g)" /data
# A fresh machine is still updating itself: wait for its lock instead of failing.
apt_get() { sudo DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=600 "$@"; }

if [[ $bucket ]]; then
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    apt_get update
    apt_get install gcsfuse
  fi
  # No cached metadata (on TPU machines gcsfuse would cache it for ever): a host must see at once what another has just
  # written.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$bucket" /data
else
  apt_get update
  apt_get install nfs-common
  # lookupcache=positive, for the same reason: "not there yet" must not be remembered.
  sudo mount -t nfs -o lookupcache=positive "$nfs" /data
fi
