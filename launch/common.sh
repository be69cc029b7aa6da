# shellcheck shell=bash
# What the launch scripts share: sourced by them, not run. They use nothing newer than the bash 3.2 of macOS, to start from any laptop.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=
workdir=

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

note() { echo "${0##*/}: $*" >&2; }

unknown() { die "unknown argument '$1': settings are --name=VALUE, what belongs to pmc-jax stands after -- (--help explains all)"; }

required() { [[ $2 ]] || die "--$1=... is missing (--help explains all)"; }

whole_number() { [[ $2 =~ ^[1-9][0-9]*$ ]] || die "--$1=$2: must be a whole number, 1 or more"; }

resource_name() { [[ $1 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--name=$1: must be of small letters, digits and -, a letter first"; }

# A dry run needs no tool: it is for reading on any machine.
need() { [[ $dry_run ]] || command -v "$1" >/dev/null || die "$1 is not installed: $2"; }

# The words as one line that any shell reads back as the same words.
quoted() {
  local word line='' quote=\' escaped="'\\''"
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_@%+=:,./-]*)
        word=${word//"$quote"/"$escaped"}
        line+=" '$word'"
        ;;
      *) line+=" $word" ;;
    esac
  done
  echo "${line# }"
}

show() { if [[ $dry_run ]]; then quoted "$@"; else echo "+ $(quoted "$@")" >&2; fi; }

# Show the command, then do it; in a dry run show it only, on stdout, to be read or pasted.
run() {
  show "$@"
  [[ $dry_run ]] || "$@"
}

# Sets `workdir` from what stands after --: VERB --workdir=DIR [flags].
read_pmc_command() {
  [[ ${1-} == [a-z]* ]] || die "nothing to run: after -- comes a verb of pmc-jax and its flags (--help shows an example)"
  local word
  for word; do [[ $word != --workdir=?* ]] || workdir=${word#*=}; done
  [[ $workdir ]] || die "--workdir=... is missing after --: the folder where the run keeps everything"
}

# This checkout, your uncommitted configs and data files included; what is only of this machine stays here.
pack() { run tar -C "$ROOT" --exclude=./.git --exclude='./.venv*' --exclude=./runs --exclude=__pycache__ --exclude='./.*_cache' -czf "$1" .; }
