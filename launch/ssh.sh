#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<'HELP'
Run pmc-jax on hosts that you reach by ssh: copies this checkout to each, installs, starts one process on each, waits,
fetches the results.

launch/ssh.sh --hosts=HOST[,HOST...] [...] -- VERB --workdir=DIR [flags of pmc-jax]

  --hosts=HOST,...    names, addresses or aliases of ~/.ssh/config; the first is the coordinator
  --extra=cuda|tpu    what the hosts compute on; default: cuda
  --coordinator=HOST:PORT  where all hosts reach the first one; default: its name in --hosts, port 8476
  --fetch=DIR         where to put the results (all but rounds/); default: runs/NAME-OF-WORKDIR; --fetch= for none
  --dry-run           print every command, run none
  --help              this text

Example:
  launch/ssh.sh --hosts=gpu1,gpu2 -- \
    unlearn --config=configs/tofu_llama.py --config.model.path=/shared/tofu-full/hf --workdir=/shared/tofu-pmc

The workdir lies on a file system that all hosts share (NFS), at the same path; one host alone may use its own disk.
When a host fails or the connection is lost, the run ends; the same command again goes on from the last saved round.
Ctrl-C ends the processes on all hosts.
HELP
}

hosts='' extra=cuda coordinator='' fetch=default
read_flags "$@"
required hosts
[[ $hosts != *' '* && $hosts != ,* && $hosts != *, && $hosts != *,,* ]] ||
  die "--hosts=$hosts: names separated by one comma each, as gpu1,gpu2"
IFS=, read -r -a hosts <<<"$hosts"
read_workdir
[[ $workdir == /* || ${#hosts[@]} -eq 1 ]] ||
  die "--workdir=$workdir: several hosts need the path of a folder that they share, as /shared/..."
[[ $extra == cuda || $extra == tpu ]] || die "--extra=$extra: cuda or tpu"
first=${hosts[0]#*@}
[[ $coordinator ]] || coordinator=$first:8476
[[ $fetch != default ]] || fetch=runs/${workdir##*/}
check_fetch
need ssh "install OpenSSH"
need scp "install OpenSSH"

archive=${TMPDIR:-/tmp}/pmc_jax-$first.tgz
pack "$archive"
for host in "${hosts[@]}"; do
  run scp -q "$archive" "$host:pmc_jax.tgz"
  install="bash pmc_jax/launch/setup_host.sh --extra=$extra"
  run ssh -n "$host" "$(unpacking pmc_jax.tgz) && $install"
done

# -tt: with a terminal of its own the remote process ends when the connection does.
processes=()
trap '((${#processes[@]})) && kill "${processes[@]}" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for i in "${!hosts[@]}"; do
  peers=(--coordinator="$coordinator" --num_processes="${#hosts[@]}" --process_id="$i")
  start=(ssh -n -tt "${hosts[i]}" "cd pmc_jax && $(quoted .venv/bin/pmc-jax "${pmc[@]}" "${peers[@]}")")
  if [[ $dry_run ]]; then
    echo "$(quoted "${start[@]}") &"
  else
    show "${start[@]}"
    "${start[@]}" & # not through `run`: it is ssh itself that must be ended
    processes+=($!)
  fi
done
[[ ! $dry_run ]] || echo wait
status=0
for ((i = 0; i < ${#processes[@]}; i++)); do
  wait "${processes[i]}" || {
    status=$?
    note "${hosts[i]} ended with status $status"
  }
done
processes=()
((status == 0)) || {
  note "the same command again goes on from the last saved round"
  exit "$status"
}

if [[ $fetch ]]; then
  run ssh -n "${hosts[0]}" "cd pmc_jax && tar -C $(quoted "$workdir") --exclude=./rounds -cf results.tar ."
  run scp -q "${hosts[0]}:pmc_jax/results.tar" "${TMPDIR:-/tmp}/pmc_jax-$first.tar"
  unpack "${TMPDIR:-/tmp}/pmc_jax-$first.tar"
fi
