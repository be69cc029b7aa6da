#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<'HELP'
Run pmc-jax on a Cloud TPU VM, one host or many: queue for the TPU, wait, install, run on every host, fetch the results,
delete the TPU.

launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE (--bucket=BUCKET | --nfs=SERVER:/SHARE) [...] -- VERB
  --workdir=/data/... [flags of pmc-jax]

  --name=NAME       of the queued resource and of the TPU
  --zone=ZONE       where, as us-west4-a
  --type=TYPE       accelerator type: v5litepod-8 (one host), v5litepod-16 (four hosts), v5p-64, v6e-64, ...
  --bucket=BUCKET   Cloud Storage bucket, mounted on every host at /data. Create it with a hierarchical namespace
                    (launch/README.md says why).
  --nfs=SERVER:/SHARE  instead of a bucket: an NFS share (as Filestore), mounted on every host at /data
  --project=ID      default: gcloud's
  --runtime=VERSION software of the VM; default: by type (v5litepod: v2-alpha-tpuv5-lite, v5p: v2-alpha-tpuv5, v6e:
                    v2-alpha-tpuv6e, v4: tpu-ubuntu2204-base)
  --spot            cheaper, and taken away when Google needs it
  --wait=DURATION   give up when no TPU came within it, as 6h; default: wait for ever
  --hf-token=FILE   file with a Hugging Face token, for gated checkpoints; default: none
  --fetch=DIR       where to put the results (all but rounds/); default: runs/NAME-OF-WORKDIR; --fetch= for none
  --keep            do not delete the TPU at the end: it is billed until you do
  --reuse           take a TPU of this name that is there already, and treat it as one's own: it too is deleted at the
                    end
  --dry-run         print every command, run none
  --help            this text

Example:
  launch/tpu_vm.sh --name=forget --zone=us-west4-a --type=v5litepod-16 --spot --bucket=my-bucket -- \
    unlearn --config=configs/tofu_llama.py --config.model.path=/data/tofu-full/hf --workdir=/data/tofu-pmc

The workdir lies below /data, which outlives the TPU. So the TPU is deleted at the end, whatever the end (unless
--keep), and the same command again goes on from the last saved round: after a failure, a preemption, a lost
connection. After a preemption the exit status is 75, so this goes on until it is done:
  while launch/tpu_vm.sh ...; [ $? = 75 ]; do sleep 60; done
HELP
}

name='' zone='' type='' bucket='' nfs='' project=''
runtime='' spot='' wait='' hf_token='' fetch=default keep='' reuse=''
read_flags "$@"
required name zone type
resource_name "$name"
[[ $bucket || $nfs ]] ||
  die "--bucket=NAME or --nfs=SERVER:/SHARE is missing: the workdir must outlive the TPU and be seen by all its hosts"
[[ ! $bucket || ! $nfs ]] || die "--bucket and --nfs: both would lie at /data, give one"
read_workdir
[[ $workdir == /data/?* ]] || die "--workdir=$workdir: must lie below /data, the folder that outlives the TPU"
[[ ! $hf_token || -f $hf_token ]] || die "--hf-token=$hf_token: no such file"
[[ $fetch != default ]] || fetch=runs/${workdir##*/}
check_fetch
if [[ ! $runtime ]]; then
  case $type in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v4-*) runtime=tpu-ubuntu2204-base ;;
    *)
      die "--runtime=VERSION is missing: unknown for --type=$type" \
        "(https://cloud.google.com/tpu/docs/runtimes lists them)"
      ;;
  esac
fi
need gcloud "https://cloud.google.com/sdk/docs/install, then: gcloud auth login"

tpus=(gcloud compute tpus)
place=(--zone="$zone" ${project:+--project="$project"})
delete=("${tpus[@]}" queued-resources delete "$name" "${place[@]}" --force --quiet)
queue_state=("${tpus[@]}" queued-resources describe "$name" "${place[@]}" '--format=value(state.state)')
vm_state=("${tpus[@]}" tpu-vm describe "$name" "${place[@]}" '--format=value(state)')
on() { run "${tpus[@]}" tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"; }
copy() { run "${tpus[@]}" tpu-vm scp "$2" "$3" "${place[@]}" --worker="$1"; }

# A list fails where the cloud cannot be asked, and is empty where there is none of this name: nothing that is not ours
# may be deleted below.
present=''
list=("${tpus[@]}" queued-resources list "${place[@]}" --filter="name~/$name\$" '--format=value(state.state)')
[[ $dry_run ]] || present=$("${list[@]}")
case $present in
  FAILED | SUSPENDING | SUSPENDED)
    note "$name was taken away ($present): queueing for another one"
    run "${delete[@]}"
    present=''
    ;;
  ?*)
    [[ $reuse ]] ||
      die "$name is there already ($present): --reuse takes it, another --name leaves it alone," \
        "this deletes it: $(quoted "${delete[@]}")"
    ;;
esac

finish() {
  local status=$?
  if [[ $keep ]]; then
    note "$name is kept and billed until you delete it: $(quoted "${delete[@]}")"
  elif [[ $dry_run ]]; then
    echo "# in the end, whatever it is:"
    run "${delete[@]}"
  elif ! run "${delete[@]}"; then
    note "$name could not be deleted; if it exists it is BILLED until you delete it: $(quoted "${delete[@]}")"
    ((status)) || status=1
  fi
  exit "$status"
}
trap finish EXIT
# From here on the TPU is deleted whatever happens, Ctrl-C and a closed terminal included.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [[ ! $present ]]; then
  run "${tpus[@]}" queued-resources create "$name" --node-id="$name" "${place[@]}" \
    --accelerator-type="$type" --runtime-version="$runtime" \
    --scopes=https://www.googleapis.com/auth/cloud-platform ${spot:+--spot} ${wait:+--valid-until-duration="$wait"}
fi

if [[ $dry_run ]]; then
  echo "until [ \"\$($(quoted "${queue_state[@]}"))\" = ACTIVE ]; do sleep 30; done"
else
  while true; do
    state=$("${queue_state[@]}") || state='not known, asking again'
    case $state in
      ACTIVE) break ;;
      FAILED | SUSPENDING | SUSPENDED)
        die "no TPU: the request for $name is $state (after --wait, or taken away at once)"
        ;;
    esac
    note "waiting for $name: $state"
    sleep 30
  done
fi

archive=pmc_jax-$name.tgz
pack "${TMPDIR:-/tmp}/$archive"
copy all "${TMPDIR:-/tmp}/$archive" "$name:"
[[ ! $hf_token ]] || copy all "$hf_token" "$name:hf_token"
setup=$(quoted bash pmc_jax/launch/setup_host.sh --extra=tpu ${bucket:+--bucket="$bucket"} ${nfs:+--nfs="$nfs"})
on all "$(unpacking "$archive") && $setup"

# The same line on every host: JAX finds the others by itself on Cloud TPU.
on all "cd pmc_jax && $(quoted .venv/bin/pmc-jax "${pmc[@]}")" || {
  status=$?
  state=$("${vm_state[@]}" 2>/dev/null) || state=GONE
  [[ $state == READY ]] || {
    note "$name was taken away ($state): the same command again goes on from the last saved round"
    exit 75
  }
  note "the run failed with status $status; $workdir holds what it has done, the same command again goes on from there"
  exit "$status"
}

if [[ $fetch ]]; then
  on 0 "tar -C $(quoted "$workdir") --exclude=./rounds -cf results.tar ."
  copy 0 "$name:results.tar" "${TMPDIR:-/tmp}/pmc_jax-$name.tar"
  unpack "${TMPDIR:-/tmp}/pmc_jax-$name.tar"
fi
