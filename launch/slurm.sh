#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<'HELP'
Run pmc-jax on GPU nodes of a SLURM cluster: submits one job, one process per node, each with all GPUs of its node.

launch/slurm.sh --name=NAME --nodes=N --gpus=N [...] -- VERB --workdir=DIR [flags of pmc-jax]

  --name=NAME     of the job; jobs of the same name (and user) run one after the other
  --nodes=N       how many nodes
  --gpus=N        GPUs of each node
  --cpus=N        CPU cores of each node; default: 4 for each GPU
  --sbatch=FLAG   any flag of sbatch, as --sbatch=--partition=gpu --sbatch=--time=24:00:00; may be given several times
  --venv=DIR      virtual environment with pmc-jax[cuda], seen by all nodes; default: .venv of this checkout
  --dry-run       print every command, run none
  --help          this text

Example:
  launch/slurm.sh --name=forget --nodes=2 --gpus=8 --sbatch=--partition=gpu --sbatch=--time=24:00:00 -- \
    unlearn --config=configs/tofu_llama.py --config.model.path=/shared/tofu-full/hf --workdir=/shared/tofu-pmc

The workdir lies on the file system that all nodes share. A preempted job is queued again by SLURM and goes on from the
last saved round. For runs longer than the time limit give the same command several times: the jobs wait for each
other, and what comes after the finished run changes nothing.
HELP
}

name='' nodes='' gpus='' cpus='' venv=$ROOT/.venv
sbatch=(--requeue --open-mode=append)
read_flags "$@"
required name nodes gpus
whole_numbers nodes gpus
: "${cpus:=$((4 * gpus))}"
whole_numbers cpus
read_workdir
need sbatch "run this on a login node of the cluster"
[[ $dry_run || -x $venv/bin/pmc-jax ]] ||
  die "$venv/bin/pmc-jax: no such program; python3 -m venv $venv && $venv/bin/pip install" \
    "--editable '${ROOT}[cuda]' makes it, --venv=DIR names another"

# Under SLURM JAX gives a process the one GPU whose number is its rank on the node, unless it is told otherwise: here it
# has all of them.
devices=0
for ((gpu = 1; gpu < gpus; gpu++)); do devices+=,$gpu; done
# One dead process ends the step at once, instead of leaving its peers to wait for it.
# srun does not take the cores over from sbatch by itself.
step=(srun --kill-on-bad-exit=1 --cpus-per-task="$cpus" env "JAX_LOCAL_DEVICE_IDS=$devices")
step+=("$venv/bin/pmc-jax" "${pmc[@]}")

run sbatch --job-name="$name" --dependency=singleton --nodes="$nodes" --ntasks-per-node=1 \
  --gpus-per-node="$gpus" --cpus-per-task="$cpus" --output=%x-%j.log \
  "${sbatch[@]}" --wrap="$(quoted "${step[@]}")"
[[ $dry_run ]] ||
  note "state: squeue --user=$(id -un) --name=$name   output: $name-JOBID.log  " \
    "to stop it: scancel --user=$(id -un) --name=$name"
