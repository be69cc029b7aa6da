"""A machine of stubs for the launch scripts: their calls are recorded, and a test chooses what the tools answer."""

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from held import PATIENCE
from tiny import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
STARTERS = ["tpu_vm", "gke", "slurm", "ssh"]
REAL = "bash sh env dirname cat mkdir rm cp mv id install uname".split()
STUBBED = "gcloud kubectl sbatch srun ssh scp tar sleep".split()
# Each call is one record of NUL-ended words; then $BEHAVIOUR says what the tool answers.
STUB = """#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" $'\\x1e' >>"$RECORD"
eval "$BEHAVIOUR"
"""
# Blanks, both quotes, what shells, YAML and Kubernetes would replace, and what they would end on.
AWKWARD = """--config.prompt.system=It's a "test": $HOME $(JOB_COMPLETION_INDEX) $$(X) `id` * & ; \\ # {a,b} é"""
PMC = ["unlearn", "--config=configs/tofu.py", AWKWARD, "--workdir=/data/runs/one"]
FLAGS = {
    "tpu_vm": ["--name=forget", "--zone=us-west4-a", "--type=v5litepod-16", "--bucket=my-bucket"],
    "gke": [
        "--name=forget",
        "--image=r/pmc-jax",
        "--accelerator=tpu-v5-lite-podslice",
        "--topology=4x4",
        "--hosts=4",
        "--bucket=my-bucket",
    ],
    "slurm": ["--name=forget", "--nodes=2", "--gpus=8"],
    "ssh": ["--hosts=ada@gpu1,gpu2"],
}
# The answers of a cloud where all is well.
WELL = """
case "${0##*/} $*" in
  gcloud*queued-resources\\ describe*) echo ACTIVE ;;
  gcloud*tpu-vm\\ describe*) echo READY ;;
  kubectl*get\\ jobset*) ! grep -qz '^apply$' "$RECORD" || echo Completed ;;
  kubectl*apply*) cat >"$RECORD.yaml" ;;
esac
"""


def ctrl_c_ends_it():
    """For what is started: a test run in the background has its children ignore SIGINT, and a shell cannot trap what
    was ignored when it came.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def call(command, env, folder):
    """Run to the end. A script that hangs is ended with all that it started: what a child keeps open would be waited
    for, too.
    """
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(
        command, env=env, cwd=folder, start_new_session=True, preexec_fn=ctrl_c_ends_it, **streams
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Said(process.returncode, out, err, read_calls(Path(env["RECORD"])))


class Said(NamedTuple):
    """What a finished script said: code, out, err; and the calls it made, each a list of words."""

    code: int
    out: str
    err: str
    calls: list[list[str]]

    def named(self, *words):
        """Positions of the calls that hold all the words."""
        return [i for i, call in enumerate(self.calls) if all(w in call for w in words)]

    def __repr__(self):
        return f"code {self.code}\n{self.out}\n{self.err}\n" + "\n".join(map(shlex.join, self.calls))


def read_calls(record):
    words = record.read_text(encoding="utf-8").split("\0")[:-1] if record.exists() else []
    return [call.split("\0") for call in "\0".join(words).removesuffix("\0\x1e").split("\0\x1e\0")] if words else []


@pytest.fixture
def world(tmp_path):
    """A PATH with stubs and a few harmless tools, nothing of this machine's own gcloud or kubectl. Returns (folder,
    environment).
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in [*REAL, "grep"]:
        (tools / tool).symlink_to(shutil.which(tool))
    for tool in STUBBED:
        (tools / tool).write_text(STUB)
        (tools / tool).chmod(0o755)
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "pmc-jax").write_text(STUB)
    (venv / "pmc-jax").chmod(0o755)
    env = dict(PATH=str(tools), HOME=str(tmp_path), TMPDIR=str(tmp_path), LANG="C.UTF-8")
    return tmp_path, env | dict(RECORD=str(tmp_path / "record"), BEHAVIOUR=WELL)


@pytest.fixture
def launch(world):
    """launch(script, *words, behaviour="") -> Said. The behaviour is asked before the cloud where all is well."""
    folder, env = world

    def run(script, *words, behaviour=""):
        Path(env["RECORD"]).unlink(missing_ok=True)
        command = words if script is None else [LAUNCH / f"{script}.sh", *words]
        return call(command, env | dict(BEHAVIOUR=f"{behaviour}\n{env['BEHAVIOUR']}"), folder)

    return run


def words_of(folder, script):
    """The flags of a run of `script` that is right in every way."""
    return [*FLAGS[script], *([f"--venv={folder}/venv"] if script == "slurm" else [])]


def answer(pattern, do):
    """Behaviour: calls that match the shell pattern do `do`."""
    return f'case "${{0##*/}} $*" in {pattern}) {do} ;; esac'


def refused(said, *words):
    """Exit code 2, one line on stderr that holds all the words, nothing called."""
    assert said.code == 2 and not said.calls, said
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), said
    return True


# What pmc-jax is given at the far end, through every shell and file on the way, is what was typed.
def far_end(launch, folder, behaviour, script):
    """The words that the far end's pmc-jax is called with, once for each host."""
    (folder / "pmc_jax" / ".venv").mkdir(parents=True)
    (folder / "pmc_jax" / ".venv" / "bin").symlink_to(folder / "venv" / "bin")
    said = launch(script, *words_of(folder, script), "--", *PMC, behaviour=behaviour)
    assert said.code == 0, said
    return sorted(call[1:] for call in said.calls if call[0] == "pmc-jax")
