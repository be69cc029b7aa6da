# shellcheck shell=bash
# What the launch scripts share: sourced by them, not run. They use nothing newer than the bash 3.2 of macOS, to start
# from any laptop.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=''
workdir=''
pmc=()

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

note() { echo "${0##*/}: $*" >&2; }

# Reads the flags of a script, then the command of pmc-jax after --, which lands in the array `pmc`.
# The table of flags is the script's own `usage`, one flag a line:
#   "  --name=VALUE  meaning"  takes a value; where the meaning says "may be given several times", all go into an array
#   "  --name  meaning"        is a switch; it sets 1
# The variable has the flag's name: --chips-per-host=4 sets $chips_per_host.
read_flags() {
  local table flag variable value
  table=$'\n'$(usage)
  while (($#)); do
    flag=${1%%=*} value=${1#*=}
    variable=${flag#--}
    variable=${variable//-/_}
    case $1 in
      --) shift && break ;;
      --help | -h) usage && exit ;;
      --[a-z]*=*) [[ $table == *$'\n'"  $flag="* ]] || unknown "$1" ;;
      --[a-z]*) [[ $table == *$'\n'"  $flag "* ]] || unknown "$1" ;;
      *) unknown "$1" ;;
    esac
    [[ $1 == *=* ]] || value=1
    if repeats "$table" "$flag"; then eval "$variable+=(\"\$value\")"; else printf -v "$variable" %s "$value"; fi
    shift
  done
  pmc=("$@")
}

# Whether the table says of a flag that it may be given several times.
repeats() {
  local line=${1#*$'\n'"  $2"}
  [[ ${line%%$'\n'*} == *'may be given several times'* ]]
}

unknown() {
  die "unknown argument '$1': settings are --name=VALUE, what belongs to pmc-jax stands after -- (--help explains all)"
}

# The value of a flag, by the flag's name.
value_of() {
  local variable=${1//-/_}
  echo "${!variable}"
}

required() {
  local flag
  for flag; do [[ $(value_of "$flag") ]] || die "--$flag=... is missing (--help explains all)"; done
}

whole_numbers() {
  local flag value
  for flag; do
    value=$(value_of "$flag")
    [[ $value =~ ^[1-9][0-9]*$ ]] || die "--$flag=$value: must be a whole number, 1 or more"
  done
}

resource_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--name=$1: must be of small letters, digits and -, a letter first"
}

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

# Sets `workdir` from the command of pmc-jax: VERB --workdir=DIR [flags].
read_workdir() {
  [[ ${pmc[0]-} == [a-z]* ]] ||
    die "nothing to run: after -- comes a verb of pmc-jax and its flags (--help shows an example)"
  local word
  for word in "${pmc[@]}"; do [[ $word != --workdir=?* ]] || workdir=${word#*=}; done
  [[ $workdir ]] || die "--workdir=... is missing after --: the folder where the run keeps everything"
}

# This checkout, your uncommitted configs and data files included; what is only of this machine stays here.
pack() {
  run tar -C "$ROOT" --exclude=./.git --exclude='./.venv*' --exclude=./runs --exclude=__pycache__ \
    --exclude='./.*_cache' -czf "$1" .
}

# unpacking ARCHIVE: what a host does with a packed checkout, for its shell. What an earlier launch put into ~/pmc_jax, as
# the list .launched has it, is replaced as long as it is as it was put there. .venv and runs/ stay.
unpacking() {
  cat <<LINES
mkdir -p pmc_jax && cd pmc_jax && {
  sent=\$(tar -tzf ../$1 | grep -v '/\$')
  [ "\$(ls -A)" ] || touch .launched
  own=\$(cut -c67- .launched) && { [ -z "\$own" ] || sha256sum --quiet -c .launched >&2; } &&
  [ -z "\$(echo "\$sent" | grep -vxF "\$own" | tr '\n' '\0' | xargs -0 ls -d 2>/dev/null)" ]
} || { echo "~/pmc_jax of \$(uname -n) holds what no launch wrote, or what was changed since: move it away" >&2; exit 2; }
echo "\$own" | tr '\n' '\0' | xargs -0 rm -f && tar -xzf ../$1 &&
echo "\$sent" | tr '\n' '\0' | xargs -0 sha256sum >.launched && cd ..
LINES
}

# A folder of this machine that results may go into: absent, empty, or with an earlier part of the same run.
check_fetch() {
  [[ $fetch && -e $fetch ]] || return 0
  [[ -d $fetch ]] || die "--fetch=$fetch: is no folder; choose another place for the results"
  [[ -e $fetch/config.json ]] || ! compgen -G "$fetch/*" >/dev/null ||
    die "--fetch=$fetch: holds other files; choose another folder for the results"
}

# unpack ARCHIVE: the results into --fetch, unless that folder holds another run.
unpack() {
  run mkdir -p "$fetch"
  if [[ ! $dry_run && -e $fetch/config.json && $(tar -xOf "$1" ./config.json) != "$(<"$fetch/config.json")" ]]; then
    die "--fetch=$fetch: holds another run; the results lie in $1: unpack them elsewhere (tar -xf $1 -C FOLDER)"
  fi
  run tar -xf "$1" -C "$fetch"
  run rm -f "$1"
}
