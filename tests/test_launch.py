"""The launch scripts: flags, help, dry runs, and the examples of the documents, against stub executables."""

import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from launch_stubs import LAUNCH, PMC, SCRIPTS, STARTERS, STUBBED, answer, refused, words_of
from tiny import ROOT


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
def test_the_help_is_the_table_of_flags(launch, script):
    """What the help names is read, into a variable that the script uses; and the script has no other flags."""
    said = launch(script, "--help")
    assert said.code == 0 and not said.err and not said.calls, said
    flags = re.findall(r"^  --([a-z-]+)\b", said.out, re.MULTILINE)
    assert len(flags) >= 5 and len(set(flags)) == len(flags)
    code = (LAUNCH / f"{script}.sh").read_text().split("HELP\n}")[1] + (LAUNCH / "common.sh").read_text()
    for flag in set(flags) - {"help"}:
        assert re.search(rf"\$\{{?{flag.replace('-', '_')}\b", code), flag
    assert f"Example:\n  launch/{script}.sh" in said.out


def test_a_flag_that_may_be_given_several_times_keeps_all_values_and_another_the_last(launch, world):
    flags = ["--sbatch=--comment=a 'b'", "--gpus=1", "--sbatch=--time=1", "--gpus=2"]
    said = launch("slurm", *words_of(world[0], "slurm"), *flags, "--", *PMC)
    assert said.code == 0 and {"--comment=a 'b'", "--time=1", "--gpus-per-node=2"} <= set(said.calls[0]), said


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


def test_a_host_replaces_only_what_a_launch_put_there(tmp_path):
    """~/pmc_jax of a host may be somebody's own checkout."""

    def unpack(**files):
        for name, text in files.items():
            (tmp_path / "from" / name).write_text(text)
        subprocess.run(["tar", "-C", tmp_path / "from", "-czf", tmp_path / "sent.tgz", "."], check=True)
        line = f'. "{LAUNCH}/common.sh"; eval "$(unpacking sent.tgz) && pwd"'
        said = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        assert (said.returncode, said.stdout) in ((0, f"{tmp_path}\n"), (2, "")), said
        return "move it away" in said.stderr

    (tmp_path / "from").mkdir()
    there = tmp_path / "pmc_jax"
    assert not unpack(a="1", b="1") and (there / "a").read_text() == "1"
    (there / "runs").mkdir()
    (there / "runs" / "mine").write_text("kept")
    (tmp_path / "from" / "b").unlink()
    assert not unpack(a="2", c="2") and (there / "a").read_text() == "2" and not (there / "b").exists()
    (there / "a").write_text("changed")
    assert unpack(a="3") and (there / "a").read_text() == "changed"
    (there / "a").write_text("2")
    (there / "d").write_text("mine")
    assert unpack(d="3") and (there / "d").read_text() == "mine"
    (there / "d").unlink()
    assert not unpack(a="4") and (there / "a").read_text() == "4" and (there / "runs" / "mine").read_text() == "kept"
    (there / ".launched").unlink()
    assert unpack(a="5") and (there / "a").read_text() == "4", "a checkout of somebody's own"
