"""Two processes with four devices each, as one: the real command line on localhost. Mistakes and deaths end both, and
one line says what to do.
"""

import contextlib
import random
import re
import socket
import subprocess
import time

import numpy as np
import pytest
from held import PATIENCE, held, until
from lines import own_lines, refused
from safetensors.numpy import load_file
from test_resume import arguments, outcome

from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError


@contextlib.contextmanager
def reserved_address():
    """An address of this machine that nobody else is given meanwhile."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the coordinator binds it beside us
        reserved.bind(("localhost", 0))
        yield f"localhost:{reserved.getsockname()[1]}"


@pytest.fixture
def coordinator():
    with reserved_address() as address:
        yield address


class Pair:
    """Two processes of one run, on four devices each; their output lies in files."""

    def __init__(self, commands, logs):
        self.logs = [(logs / f"{i}.out", logs / f"{i}.err") for i in range(2)]
        self.processes = []
        for command, (out, err) in zip(commands, self.logs, strict=True):
            with out.open("w") as stdout, err.open("w") as stderr:
                self.processes.append(subprocess.Popen(command, stdout=stdout, stderr=stderr))

    def said(self, i):
        """What process i has written on stdout and on stderr."""
        return tuple(log.read_text() for log in self.logs[i])

    def codes(self):
        """The exit codes, at the end of both."""
        return [process.wait(timeout=PATIENCE) for process in self.processes]

    def finished_well(self):
        codes = self.codes()
        assert codes == [0, 0], [self.said(i)[1][-2000:] for i in range(2)]
        return True

    def last_words(self, i):
        """The line that says why process i ended; a witness may write it a moment after the end."""
        until(lambda: own_lines(self.said(i)[1]))
        return own_lines(self.said(i)[1])[-1]


@pytest.fixture(scope="module")
def pair(command, tmp_path_factory):
    """pair(coordinator, words) -> a Pair, started. held: arguments of `held` for the first process."""
    context = pytest.MonkeyPatch()
    context.setenv("JAX_NUM_CPU_DEVICES", "4")
    started = []

    def start(coordinator, words, hold=()):
        # The machine may stop for a while: that must not end a healthy run. A death is noticed within this time.
        timeout = 45 if hold else PATIENCE
        commands = []
        for i in range(2):
            peers = ["--num_processes=2", f"--process_id={i}", f"--peer_timeout={timeout}"]
            everything = [*words, f"--coordinator={coordinator}", *peers]
            commands.append(held(everything, *hold) if hold and i == 0 else command(*everything))
        started.append(Pair(commands, tmp_path_factory.mktemp("logs")))
        return started[-1]

    yield start
    context.undo()
    for both in started:
        for process in both.processes:
            process.kill()


def flags(folder, data, workdir, *more):
    return [*arguments(folder, data, workdir), "--config.train.epochs=3", *more]


@pytest.fixture(scope="module")
def alone(command, tiny_folder, data_folder, tmp_path_factory):
    """The run of one process on one device."""
    run = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run(command(*flags(tiny_folder, data_folder, run)), check=True, capture_output=True)
    return run


@pytest.fixture(scope="module")
def together(pair, tiny_folder, data_folder, tmp_path_factory):
    """The same run of two processes on eight devices, and what they said."""
    run = tmp_path_factory.mktemp("together") / "run"
    with reserved_address() as coordinator:
        both = pair(coordinator, flags(tiny_folder, data_folder, run))
        assert both.finished_well()
    return run, [both.said(i) for i in range(2)]


def test_two_processes_find_what_one_finds(alone, together):
    """Data-parallel: the same samples token for token."""
    ours, theirs = outcome(alone), outcome(together[0])
    assert theirs["answers"] == ours["answers"]
    assert theirs["numbers"] == ours["numbers"]
    assert theirs["samples"].keys() == ours["samples"].keys()
    for name, lines in ours["samples"].items():
        assert theirs["samples"][name] == lines, name
    far = [
        abs(a[k] - b[k])
        for a, b in zip(ours["metrics"], theirs["metrics"], strict=True)
        for k in a
        if k.endswith("loss")
    ]
    one, two = (load_file(run / "hf" / "model.safetensors") for run in (alone, together[0]))
    apart = [np.max(np.abs(one[name] - two[name])) for name in one]
    print(f"losses apart at most {max(far):.1e}, parameters {max(apart):.1e}")
    assert max(far) < 1e-5 and max(apart) < 1e-5


def test_the_first_process_speaks_and_both_save(together):
    """Libraries print on either process whatever they like: only what is ours is looked for."""
    run, ((first, _), (second, progress)) = together
    ours = ("unlearn quality", "seconds:", str(run / "hf"), str(run / "report.html"))
    assert all(words in first and words not in second for words in ours), second
    assert not own_lines(progress) and not re.search(r"(unlearn|evaluate|finetune)\S*: \d+/\d+", progress), progress
    assert len(list((run / "events").iterdir())) == 1 and (run / "report.html").exists()
    for process in range(2):
        assert list((run / "rounds").glob(f"*/state/ocdbt.process_{process}/d/*")), "each process writes its own shards"


def test_one_device_exports_what_two_processes_saved(together, command, tmp_path):
    run, _ = together
    said = subprocess.run(
        command("export", f"--workdir={run}", f"--output={tmp_path / 'hf'}"), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == (run / "hf" / "model.safetensors").read_bytes()


def test_a_folder_of_another_run_ends_both(together, pair, coordinator, tiny_folder, data_folder):
    """Only the first process looks into the workdir."""
    both = pair(coordinator, flags(tiny_folder, data_folder, together[0], "--config.seed=5"))
    assert both.codes() == [2, 2]
    for i in range(2):
        assert "seed: 0 there, 5 now" in both.last_words(i) and len(own_lines(both.said(i)[1])) == 1


def kill_one(both, victim, marker):
    """SIGKILL one of two while the first stands still. The other ends, with a word."""
    until(marker.exists, both.processes)
    killed = time.monotonic()
    both.processes[victim].kill()
    marker.with_name(marker.name + ".go_on").touch()
    code = both.processes[1 - victim].wait(timeout=PATIENCE)
    word = both.last_words(1 - victim)
    print(f"process {victim} killed: the other ended after {time.monotonic() - killed:.1f} s with code {code}: {word}")
    assert code != 0 and re.search("process.* is gone.*the same command on every host goes on", word)


@pytest.mark.parametrize(
    "victims", [[1], pytest.param([1, 0], marks=pytest.mark.parity)]
)  # both, one after the other, take long
def test_one_is_killed_and_both_are_started_again(together, pair, tiny_folder, data_folder, tmp_path, victims):
    """At a drawn write after a round's samples. The run goes on as if nothing had been, to the bit."""
    run, drawn = tmp_path / "run", random.Random(0)
    words = flags(tiny_folder, data_folder, run)
    for number, victim in enumerate(victims):
        marker = tmp_path / f"stands_still_{number}"
        hold = (marker, run, f"round_{2 * number + drawn.randint(0, 1):05d}.jsonl", drawn.randint(0, 12))
        with reserved_address() as address:
            kill_one(pair(address, words, hold), victim, marker)
        assert not (run / "result.json").exists()
    with reserved_address() as address:
        assert pair(address, words).finished_well()
    assert outcome(run) == outcome(together[0])


def test_partners_that_never_come(command, coordinator, tiny_folder, tmp_path):
    peers = [f"--coordinator={coordinator}", "--num_processes=2", "--process_id=1", "--peer_timeout=1"]
    start = command("unlearn", f"--config.model.path={tiny_folder}", f"--workdir={tmp_path / 'run'}", *peers)
    said = subprocess.run(start, capture_output=True, text=True, timeout=PATIENCE)
    assert said.returncode not in (0, None) and "never came" in own_lines(said.stderr)[-1], said.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--coordinator=localhost:1"], ["--num_processes and --process_id missing"]),
        (["--num_processes=2", "--process_id=0"], ["--coordinator missing"]),
        (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], ["--process_id=2", "0 to 1"]),
        (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], ["HOST:PORT"]),
        (["--peer_timeout=0"], ["peer_timeout"]),
    ],
)
def test_flags_that_do_not_go_together(cli, tmp_path, given, words):
    said = cli("unlearn", f"--workdir={tmp_path / 'run'}", *given)
    assert refused(said, *words)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, True),
        ({"TPU_ML_PLATFORM": "JAX"}, False),
        ({"TPU_ML_PLATFORM": "JAX", "JAX_PLATFORMS": "tpu,cpu"}, True),
    ],
)
def test_which_schedulers_start_several_processes(monkeypatch, environment, expected):
    """The first three of SLURM: no allocation's shell waits for partners. A TPU machine that is told to use its CPU is
    on its own.
    """
    for name in ("SLURM_STEP_NUM_TASKS", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX", "TPU_ML_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert multihost.several(None, None, None) == expected


def test_a_process_on_its_own():
    assert multihost.is_primary()
    assert multihost.exchange(b"x") == [b"x"]
    assert multihost.broadcast_from_primary(lambda: {"a": [1, None]}) == {"a": [1, None]}
    assert multihost.map_across_processes(lambda x: [x, str(x)], [3, 1, 2]) == [[3, "3"], [1, "1"], [2, "2"]]
    with pytest.raises(UserError, match="no such thing"):
        multihost.broadcast_from_primary(lambda: (_ for _ in ()).throw(UserError("no such thing")))
