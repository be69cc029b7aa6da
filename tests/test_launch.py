"""The launch scripts against stub executables: what they call, in which order, with which words, and what is left when
a step fails.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
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
            out, err = process.communicate(timeout=60)
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


def test_shellcheck_finds_nothing():
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    found = subprocess.run(
        [shellcheck, "--external-sources", "--enable=quote-safe-variables", *SCRIPTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("script", STARTERS)
def test_help_teaches_every_flag(launch, script):
    said = launch(script, "--help")
    assert said.code == 0 and not said.err and not said.calls, said
    flags = re.findall(r"^    (--[a-z-]+)(?:=\*)?\)", (LAUNCH / f"{script}.sh").read_text(), re.MULTILINE)
    assert len(flags) >= 5
    for flag in flags:
        assert re.search(rf"^  {flag}\b", said.out, re.MULTILINE), flag
    assert f"Example:\n  launch/{script}.sh" in said.out


@pytest.mark.parametrize("script", STARTERS)
def test_a_dry_run_runs_nothing_and_what_it_prints_does_the_same_when_pasted(launch, world, script):
    words = [*words_of(world[0], script), "--", *PMC]
    dry = launch(script, "--dry-run", *words)
    assert dry.code == 0 and not dry.err and not dry.calls, dry
    pasted, real = launch(None, "bash", "-c", dry.out), launch(script, *words)
    assert pasted.code == real.code == 0, (pasted, real)
    # Questions about the state are asked more often in a real run; hosts start at once, in any order.
    do = lambda said: sorted(call for call in said.calls if not {"describe", "list", "get"} & set(call))  # noqa: E731
    assert do(pasted) == do(real) and do(real)


@pytest.mark.parametrize("script", STARTERS)
def test_a_dry_run_needs_no_tool(launch, world, script):
    for tool in STUBBED:
        (world[0] / "tools" / tool).unlink()
    assert launch(script, "--dry-run", *words_of(world[0], script), "--", *PMC).code == 0


@pytest.mark.parametrize(
    ("script", "tool"), [("tpu_vm", "gcloud"), ("gke", "kubectl"), ("slurm", "sbatch"), ("ssh", "ssh"), ("ssh", "scp")]
)
def test_a_missing_tool_is_named(launch, world, script, tool):
    (world[0] / "tools" / tool).unlink()
    assert refused(launch(script, *words_of(world[0], script), "--", *PMC), f"{script}.sh: {tool} is not installed")


@pytest.mark.parametrize("script", STARTERS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda flags: flags[1:], ["--", "is missing"]),
        (lambda flags: [*flags, "--nmae=x"], ["--nmae=x", "unknown"]),
        (lambda flags: [*flags, "forget"], ["'forget'", "unknown"]),
        (lambda flags: [*flags, "--name"], ["'--name'", "--name=VALUE"]),
    ],
)
def test_a_wrong_flag_is_one_line(launch, world, script, change, words):
    assert refused(launch(script, *change(words_of(world[0], script)), "--", *PMC), *words)


@pytest.mark.parametrize("script", STARTERS)
@pytest.mark.parametrize(
    ("pmc", "word"),
    [
        ([], "nothing to run"),
        (["--workdir=/data/x"], "verb"),
        (["unlearn"], "--workdir"),
        (["unlearn", "--workdir="], "--workdir"),
    ],
)
def test_a_wrong_pmc_jax_command_is_one_line(launch, world, script, pmc, word):
    assert refused(launch(script, *words_of(world[0], script), "--", *pmc), word)


@pytest.mark.parametrize(
    ("script", "flag", "words"),
    [
        ("tpu_vm", "--bucket=", ["--bucket", "--nfs", "missing"]),
        ("tpu_vm", "--nfs=server:/share", ["--bucket", "--nfs", "give one"]),
        ("tpu_vm", "--type=v9-8", ["--runtime", "v9-8"]),
        ("tpu_vm", "--hf-token=/no/such/file", ["/no/such/file"]),
        ("tpu_vm", "--name=My_Run", ["--name=My_Run"]),
        ("gke", "--bucket=", ["--bucket", "--claim"]),
        ("gke", "--hosts=2", ["4x4", "16 chips", "8"]),
        ("gke", "--hosts=two", ["--hosts=two", "whole number"]),
        ("gke", "--topology=16", ["--topology=16", "2x4"]),
        ("gke", "--name=My_Run", ["--name=My_Run"]),
        ("slurm", "--gpus=0", ["--gpus=0"]),
        ("slurm", "--venv=/no/such/venv", ["/no/such/venv/bin/pmc-jax", "pip install"]),
        ("ssh", "--hosts=a,,b", ["--hosts=a,,b"]),
        ("ssh", "--extra=gpu", ["--extra=gpu", "cuda"]),
    ],
)
def test_a_wrong_value_is_one_line(launch, world, script, flag, words):
    assert refused(launch(script, *words_of(world[0], script), flag, "--", *PMC), *words)


@pytest.mark.parametrize("script", ["tpu_vm", "gke", "ssh"])
def test_a_workdir_that_would_not_be_shared_is_refused(launch, world, script):
    assert refused(
        launch(script, *words_of(world[0], script), "--", "unlearn", "--workdir=runs/one"), "--workdir=runs/one"
    )


# What pmc-jax is given at the far end, through every shell and file on the way, is what was typed.


def far_end(launch, folder, behaviour, script):
    """The words that the far end's pmc-jax is called with, once for each host."""
    (folder / "pmc_jax" / ".venv").mkdir(parents=True)
    (folder / "pmc_jax" / ".venv" / "bin").symlink_to(folder / "venv" / "bin")
    said = launch(script, *words_of(folder, script), "--", *PMC, behaviour=behaviour)
    assert said.code == 0, said
    return sorted(call[1:] for call in said.calls if call[0] == "pmc-jax")


def test_tpu_vm_hands_over_every_word(launch, world):
    remote = answer(
        "gcloud*tpu-vm\\ ssh*pmc-jax\\ unlearn*",
        'for w; do case $w in --command=*) cd "$HOME" && bash -c "${w#*=}" ;; esac; done',
    )
    assert far_end(launch, world[0], remote, "tpu_vm") == [PMC]


def test_ssh_hands_over_every_word_and_says_who_is_who(launch, world):
    remote = answer("ssh*pmc-jax\\ unlearn*", 'cd "$HOME" && bash -c "${@: -1}"')
    expected = [[*PMC, "--coordinator=gpu1:8476", "--num_processes=2", f"--process_id={i}"] for i in (0, 1)]
    assert far_end(launch, world[0], remote, "ssh") == expected


def test_slurm_hands_over_every_word_to_a_process_with_all_gpus(launch, world):
    job = answer("sbatch*", 'for w; do case $w in --wrap=*) sh -c "${w#*=}" ;; esac; done')
    step = answer("srun*", 'while [[ $1 == --* ]]; do shift; done; "$@"; echo "$2"')
    said = launch(
        "slurm", *words_of(world[0], "slurm"), "--sbatch=--comment=two words", "--", *PMC, behaviour=f"{job}\n{step}"
    )
    assert [call[1:] for call in said.calls if call[0] == "pmc-jax"] == [PMC], said
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7" in said.out
    submitted = said.calls[0]
    assert {
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--comment=two words",
        "--requeue",
        "--dependency=singleton",
    } <= set(submitted)


def test_gke_hands_over_every_word_and_says_who_is_who(launch, world):
    said = launch("gke", *FLAGS["gke"], "--", *PMC[:2], AWKWARD + "\nnext line", PMC[3])
    assert said.code == 0, said
    args = pod(world)["containers"][0]["args"]
    mine, who = args[:4], args[4:]
    # As Kubernetes reads them: $$ is a $, $(NAME) a variable, which must not be left in what the user wrote.
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", mine[2].replace("$$", ""))
    assert [a.replace("$$", "$") for a in mine] == [*PMC[:2], AWKWARD + "\nnext line", PMC[3]]
    assert who == [
        "--coordinator=forget-hosts-0-0.forget:8476",
        "--num_processes=4",
        "--process_id=$(JOB_COMPLETION_INDEX)",
    ]


# Cloud TPU VM


STEPS = {
    "create": "gcloud*queued-resources\\ create*",
    "pack": "tar*-czf*",
    "copy": "gcloud*tpu-vm\\ scp*forget:\\ *",
    "install": "gcloud*tpu-vm\\ ssh*setup_host*",
    "run": "gcloud*tpu-vm\\ ssh*pmc-jax\\ unlearn*",
    "gather": "gcloud*tpu-vm\\ ssh*results.tar*",
    "fetch": "gcloud*tpu-vm\\ scp*results.tar*",
}


def test_tpu_vm_does_its_steps_in_order_on_all_hosts(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--spot", "--project=my project", "--wait=6h", "--", *PMC)
    assert said.code == 0, said
    steps = [" ".join(call[3:5]) for call in said.calls if call[0] == "gcloud" and not {"describe", "list"} & set(call)]
    inside = ["tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh", "tpu-vm ssh", "tpu-vm scp"]
    assert steps == ["queued-resources create", *inside, "queued-resources delete"], said
    place = {"--zone=us-west4-a", "--project=my project"}
    assert all(place <= set(call) for call in said.calls if call[0] == "gcloud")
    kind = {"--node-id=forget", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"}
    assert kind | {"--spot", "--valid-until-duration=6h"} <= set(said.calls[said.named("create")[0]])
    ssh = [call for call in said.calls if "ssh" in call]
    assert ["--worker=all" in call for call in ssh] == [True, True, False]
    assert "setup_host.sh --extra=tpu --bucket=my-bucket" in ssh[0][-1]
    assert said.calls[-1][-2:] == ["--force", "--quiet"]


@pytest.mark.parametrize("step", STEPS)
def test_tpu_vm_is_deleted_when_a_step_fails(launch, step):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer(STEPS[step], "exit 9"))
    assert said.code == 9, said
    assert "delete" in said.calls[-1] and "--force" in said.calls[-1], said
    later = list(STEPS)[list(STEPS).index(step) + 1 :]
    assert not any("results.tar" in " ".join(call) for call in said.calls) or "gather" not in later


@pytest.mark.parametrize("step", ["install", "fetch", None])
def test_tpu_vm_that_cannot_be_deleted_says_how(launch, step):
    behaviour = answer("*queued-resources\\ delete*", "exit 1") + "\n" + (answer(STEPS[step], "exit 9") if step else "")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=behaviour)
    assert said.code == (9 if step else 1), said
    told = said.err.strip().splitlines()[-1]
    assert "BILLED" in told and told.endswith(
        "gcloud compute tpus queued-resources delete forget --zone=us-west4-a --force --quiet"
    )


def test_tpu_vm_deletes_nothing_when_the_cloud_cannot_be_asked(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ list*", "exit 4"))
    assert said.code == 4 and len(said.calls) == 1, said


def test_tpu_vm_kept_says_how_to_delete_it(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--keep", "--", *PMC)
    assert said.code == 0 and not said.named("delete") and "queued-resources delete forget" in said.err, said


def test_tpu_vm_waits_until_active(launch):
    count = '$(grep -cz "^describe$" "$RECORD")'
    turns = (
        f"case {count} in 1) echo WAITING_FOR_RESOURCES ;; 2) exit 1 ;; 3) echo PROVISIONING ;; *) echo "
        "ACTIVE ;; esac; exit"
    )
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ describe*", turns))
    assert said.code == 0 and len(said.named("sleep")) == 3 and max(said.named("sleep")) < min(said.named("scp")), said


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_tpu_vm_that_never_came(launch, state):
    said = launch(
        "tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ describe*", f"echo {state}; exit")
    )
    assert said.code == 2 and state in said.err and not said.named("scp") and "delete" in said.calls[-1], said


def test_tpu_vm_after_a_preemption_the_same_command_goes_on(launch):
    words = [*FLAGS["tpu_vm"], "--spot", "--", *PMC]
    taken = answer(STEPS["run"], "exit 255") + "\n" + answer("*tpu-vm\\ describe*", "echo PREEMPTED; exit")
    first = launch("tpu_vm", *words, behaviour=taken)
    assert first.code == 75 and "goes on" in first.err and "delete" in first.calls[-1], first
    # It could also not be deleted in time: what is left of it goes first.
    left = answer("*queued-resources\\ list*", "echo SUSPENDED; exit")
    second = launch("tpu_vm", *words, behaviour=left)
    assert second.code == 0, second
    assert second.named("delete")[0] < second.named("create")[0] < second.named("ssh")[0]
    runs = [
        [c[-1] for c in said.calls if "ssh" in c and "pmc-jax" in c[-1] and "unlearn" in c[-1]]
        for said in (first, second)
    ]
    assert runs[0] == runs[1] and len(runs[0]) == 1


def test_tpu_vm_a_failed_run_is_no_preemption(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer(STEPS["run"], "exit 2"))
    assert said.code == 2 and "failed with status 2" in said.err, said


def test_tpu_vm_that_is_there_already_is_left_alone_unless_told(launch):
    there = answer("*queued-resources\\ list*", "echo ACTIVE; exit")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=there)
    assert (
        said.code == 2
        and len(said.calls) == 1
        and "--reuse" in said.err
        and "queued-resources delete forget" in said.err
    ), said
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--reuse", "--", *PMC, behaviour=there)
    assert said.code == 0 and not said.named("create") and "delete" in said.calls[-1], said


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_tpu_vm_is_deleted_when_stopped(world, kind):
    folder, env = world
    env = env | dict(BEHAVIOUR=answer(STEPS["run"], f'kill -{kind:d} "$PPID"; exit 1') + "\n" + WELL)
    said = call([LAUNCH / "tpu_vm.sh", *FLAGS["tpu_vm"], "--", *PMC], env, folder)
    assert said.code == 128 + kind and "delete" in said.calls[-1], said


def test_tpu_vm_a_token_is_copied_as_a_file_and_never_shown(launch, tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], f"--hf-token={tmp_path}/token", "--", *PMC)
    assert (
        said.code == 0
        and said.named(f"{tmp_path}/token", "forget:hf_token", "--worker=all")
        and "hf_secret" not in repr(said)
    ), said


# GKE JobSet


def jobset(world):
    return yaml.safe_load(Path(world[1]["RECORD"] + ".yaml").read_text(encoding="utf-8"))


def pod(world):
    return jobset(world)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("spot", [True, False])
def test_gke_jobset(launch, world, spot):
    said = launch("gke", *FLAGS["gke"], *(["--spot"] if spot else []), "--hf-secret=hf", "--", *PMC)
    assert said.code == 0 and said.named("apply") < said.named("get")[1:], said
    found = jobset(world)
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        "forget",
    )
    assert found["spec"]["network"] == {
        "enableDNSHostnames": True,
        "subdomain": "forget",
        "publishNotReadyAddresses": True,
    }
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimit"]) == ("Indexed", 4, 4, 0)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod(world)["nodeSelector"] == selector | ({"cloud.google.com/gke-spot": "true"} if spot else {})
    container = pod(world)["containers"][0]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}} and container["image"] == "r/pmc-jax"
    assert container["env"][1] == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    assert pod(world)["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_gke_restarts_after_a_preemption_without_counting_it(launch, world):
    launch("gke", *FLAGS["gke"], "--max-restarts=5", "--", *PMC)
    policy = jobset(world)["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 5 and policy["restartStrategy"] == "BlockingRecreate"
    assert policy["rules"] == [
        {
            "name": "preempted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    ]
    job = jobset(world)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"] == {
        "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    }
    assert pod(world)["restartPolicy"] == "Never"  # the only one that goes with a podFailurePolicy


def test_gke_volume_claim(launch, world):
    said = launch(
        "gke", *[f for f in FLAGS["gke"] if "bucket" not in f], "--claim=filestore", "--namespace=ml", "--", *PMC
    )
    assert said.code == 0 and all(call[1] == "--namespace=ml" for call in said.calls if call[0] == "kubectl"), said
    assert pod(world)["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "filestore"}}]


def test_gke_the_same_command_starts_a_failed_run_anew(launch):
    failed = 'grep -qz "^apply$" "$RECORD" && echo Completed || echo Failed; exit'
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=answer("kubectl*get\\ jobset*", failed))
    assert said.code == 0 and said.named("delete")[0] < said.named("apply")[0], said


def test_gke_failures(launch):
    gone = answer("kubectl*get\\ jobset*", '! grep -qz "^apply$" "$RECORD" || echo Failed; exit')
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=gone)
    assert said.code == 1 and "failed" in said.err and "kubectl delete jobset forget" in said.err, said
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=answer("kubectl*apply*", "cat >/dev/null; exit 7"))
    assert said.code == 7 and not said.named("sleep"), said


def test_gke_detached_does_not_wait(launch):
    said = launch("gke", *FLAGS["gke"], "--detach", "--", *PMC)
    assert said.code == 0 and "apply" in said.calls[-1] and "kubectl logs" in said.err, said


# SLURM and ssh


def test_slurm_that_refuses_the_job(launch, world):
    said = launch("slurm", *words_of(world[0], "slurm"), "--", *PMC, behaviour=answer("sbatch*", "exit 3"))
    assert said.code == 3 and "scancel" not in said.err, said


def test_ssh_installs_everywhere_before_it_starts_anything(launch):
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC)
    assert said.code == 0, said
    last = [call[-1] for call in said.calls if call[0] == "ssh"]
    assert ["setup_host.sh --extra=cuda" in c for c in last] == [True, True, False, False, False]
    assert [call[-1] for call in said.calls if call[0] == "scp"][:2] == ["ada@gpu1:pmc_jax.tgz", "gpu2:pmc_jax.tgz"]
    assert said.calls[-1][0] == "tar" and (said.calls[-2][:2] == ["scp", "-q"])


@pytest.mark.parametrize("host", ["ada@gpu1", "gpu2"])
def test_ssh_a_host_that_fails_is_named(launch, host):
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC, behaviour=answer(f"ssh*{host}\\ *pmc-jax\\ unlearn*", "exit 5"))
    assert said.code == 5 and f"{host} ended with status 5" in said.err and "goes on" in said.err, said
    assert not any("results.tar" in " ".join(call) for call in said.calls)
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC, behaviour=answer(f"scp*{host}:*", "exit 5"))
    assert said.code == 5 and not any("--process_id" in call[-1] for call in said.calls), said


def test_ssh_stopped_ends_the_processes_on_all_hosts(world):
    folder, env = world
    wait = 'trap "kill \\$!; echo . >>$HOME/ended; exit" TERM; /bin/sleep 60 & echo . >>"$HOME/started"; wait'
    env = env | dict(BEHAVIOUR=answer("ssh*process_id*", wait) + "\n" + WELL)
    script = subprocess.Popen(
        [LAUNCH / "ssh.sh", *FLAGS["ssh"], "--", *PMC],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ctrl_c_ends_it,
    )
    count = lambda name: (folder / name).read_text().count(".") if (folder / name).exists() else 0  # noqa: E731
    until(lambda: count("started") == 2)
    script.send_signal(signal.SIGINT)
    assert script.wait(timeout=30) == 130
    until(lambda: count("ended") == 2)


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# What runs on the hosts, and what is sent there


@pytest.fixture
def host(world):
    """host(*flags) -> Said: setup_host.sh in a copied checkout, on a machine where nothing is installed yet."""
    folder, env = world
    (folder / "pmc_jax" / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "setup_host.sh", folder / "pmc_jax" / "launch")
    for tool in ("uv", "sudo", "curl", "gcsfuse", "mountpoint", "lsb_release"):
        (folder / "tools" / tool).write_text(STUB)
        (folder / "tools" / tool).chmod(0o755)
    nothing_mounted = answer("mountpoint*", "exit 1") + "\n" + answer("sudo*tee*", "cat >/dev/null")

    def run(*flags, behaviour=nothing_mounted):
        Path(env["RECORD"]).unlink(missing_ok=True)
        command = ["bash", "pmc_jax/launch/setup_host.sh", *flags]
        return call(command, env | dict(BEHAVIOUR=behaviour), folder)

    return run


def test_host_gets_a_python_the_package_and_the_bucket(host):
    said = host("--extra=tpu", "--bucket=my-bucket")
    assert said.code == 0, said
    install = said.calls[said.named("uv", "install")[0]]
    assert install[-2:] == ["--editable", ".[tpu]"] and said.named("uv", "venv")
    assert said.calls[-1][0] == "gcsfuse" and said.calls[-1][-2:] == ["my-bucket", "/data"]
    assert {"--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"} <= set(said.calls[-1])


def test_host_without_gcsfuse_installs_it(host, world):
    (world[0] / "tools" / "gcsfuse").unlink()
    said = host("--extra=tpu", "--bucket=my-bucket")
    assert said.named("sudo", "apt-get", "install", "gcsfuse") and said.code == 127, (
        said
    )  # apt-get is a stub: it brought none


def test_host_mounts_nfs(host):
    said = host("--extra=cuda", "--nfs=10.0.0.2:/share")
    assert said.code == 0 and said.calls[-1] == [
        "sudo",
        "mount",
        "-t",
        "nfs",
        "-o",
        "lookupcache=positive",
        "10.0.0.2:/share",
        "/data",
    ], said


def test_host_that_is_ready_is_left_as_it_is(host):
    said = host("--extra=tpu", "--bucket=my-bucket", behaviour="")
    assert said.code == 0 and not said.named("gcsfuse") and not said.named("sudo"), said


def test_host_keeps_the_token_where_only_the_user_reads_it(host, world):
    (world[0] / "hf_token").write_text("hf_secret")
    assert host("--extra=tpu").code == 0
    token = world[0] / ".cache" / "huggingface" / "token"
    assert (
        token.read_text() == "hf_secret"
        and token.stat().st_mode & 0o777 == 0o600
        and not (world[0] / "hf_token").exists()
    )


def test_the_checkout_is_sent_without_what_is_of_this_machine_only(launch, world, tmp_path):
    """With the real tar, from a checkout that has all that must stay."""
    (world[0] / "tools" / "tar").unlink()
    for tool in ("tar", "gzip"):
        (world[0] / "tools" / tool).symlink_to(shutil.which(tool))
    checkout = tmp_path / "checkout"
    shutil.copytree(LAUNCH, checkout / "launch")
    for file in (
        "configs/mine.py",
        ".git/HEAD",
        ".venv/bin/python",
        "runs/one/result.json",
        "pmc_jax/__pycache__/a.pyc",
        "pmc_jax/runs.py",
        ".ruff_cache/x",
    ):
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text("")
    keep = answer("scp*pmc_jax.tgz", 'cp "$2" "$HOME/sent.tgz"')
    launch(
        None,
        checkout / "launch" / "ssh.sh",
        "--hosts=gpu1",
        "--fetch=",
        "--",
        "unlearn",
        "--workdir=runs/one",
        behaviour=keep,
    )
    sent = subprocess.run(
        ["tar", "-tzf", tmp_path / "sent.tgz"], capture_output=True, text=True, check=True
    ).stdout.split()
    files = {name for name in sent if not name.endswith("/") and "launch" not in name}
    assert files == {"./configs/mine.py", "./pmc_jax/runs.py"} and "./launch/setup_host.sh" in sent


# The examples that users paste


def examples(file):
    """Commands of launch/*.sh in a document's code blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line.removeprefix("while ").split("; [")[0] for line in lines if line.startswith(("launch/", "while launch/"))
    ]


def test_the_examples_of_the_documents_run(launch):
    found = examples(LAUNCH / "README.md")
    assert {shlex.split(line)[0] for line in found} >= {f"launch/{s}.sh" for s in STARTERS}
    for line in found:
        script, *words = shlex.split(line, comments=True)
        said = launch(Path(script).stem, "--dry-run", *words)
        assert said.code == 0 and said.out and not said.calls, said


def test_the_examples_of_the_helps_run(launch):
    for script in STARTERS:
        text = launch(script, "--help").out
        example = re.search(r"Example:\n((?:  .*\n)+)", text).group(1).replace("\\\n", " ")
        _, *words = shlex.split(example)
        assert launch(script, "--dry-run", *words).code == 0, example
