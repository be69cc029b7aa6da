"""Two processes with four devices each, as one: the real command line on localhost. Mistakes and deaths end both, and
one line says what to do.
"""

import random
import re
import socket
import subprocess
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_resume import arguments, outcome

from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError

BOUND = 60  # seconds in which the death of one process ends the other
PATIENCE = 600  # the machine may stop for a while: that is not to end a healthy run


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def pair(command, tmp_path_factory):
    """pair(*arguments) -> the two processes, started; their output lies in files named by `said`."""
    logs = tmp_path_factory.mktemp("logs")
    context = pytest.MonkeyPatch()
    context.setenv("JAX_NUM_CPU_DEVICES", "4")
    started = []

    def start(*arguments, timeout=PATIENCE):
        address = f"--coordinator=localhost:{free_port()}"
        pairs = []
        for i in range(2):
            flags = [address, "--num_processes=2", f"--process_id={i}", f"--peer_timeout={timeout}"]
            log = logs / f"{len(started)}"
            with open(f"{log}.out", "w") as out, open(f"{log}.err", "w") as err:
                pairs.append(subprocess.Popen(command(*arguments, *flags), stdout=out, stderr=err))
            pairs[-1].said = lambda log=log: (open(f"{log}.out").read(), open(f"{log}.err").read())
            started.append(pairs[-1])
        return pairs

    yield start
    context.undo()
    for process in started:
        process.kill()


def codes(processes, limit=400):
    return [p.wait(timeout=limit) for p in processes]


def last_words(process):
    """The line that says why a process ended; it may come a moment after its end, and libraries may add theirs."""
    end = time.monotonic() + 5
    while time.monotonic() < end and "pmc-jax: " not in process.said()[1]:
        time.sleep(0.1)
    return [line for line in process.said()[1].splitlines() if line.startswith("pmc-jax: ")][-1]


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
    processes = pair(*flags(tiny_folder, data_folder, run))
    assert codes(processes) == [0, 0], [p.said()[1][-2000:] for p in processes]
    return run, [p.said() for p in processes]


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
    run, ((first, _), (second, progress)) = together
    assert "unlearn quality" in first and str(run / "hf") in first
    assert not [line for line in second.splitlines() if "[Gloo]" not in line and "connected to" not in line], second
    assert "unlearn" not in progress and "evaluate" not in progress
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


def test_a_folder_of_another_run_ends_both(together, pair, tiny_folder, data_folder):
    """Only the first process looks into the workdir."""
    processes = pair(*flags(tiny_folder, data_folder, together[0], "--config.seed=5"))
    assert codes(processes) == [2, 2]
    for process in processes:
        assert "seed: 0 there, 5 now" in last_words(process) and len(process.said()[1].strip().splitlines()) == 1


def kill_after(processes, victim, run, rounds, pause):
    """SIGKILL one of two when so many rounds are sampled. The other ends, soon and with a word."""
    end = time.monotonic() + PATIENCE
    while len(list(run.glob("samples/*.jsonl"))) < rounds and time.monotonic() < end:
        assert [p.poll() for p in processes] == [None, None], [p.said()[1][-2000:] for p in processes]
        time.sleep(0.02)
    time.sleep(pause)
    killed = time.monotonic()
    processes[victim].kill()
    other = processes[1 - victim]
    code = other.wait(timeout=BOUND)
    print(
        f"process {victim} killed: the other ended after {time.monotonic() - killed:.1f} s with code {code}: "
        f"{last_words(other)}"
    )
    assert code != 0 and re.search("process.* is gone.*the same command on every host goes on", last_words(other))
    assert not (run / "result.json").exists(), "the run was over before it could be killed"


@pytest.mark.parametrize(
    "victims", [[1], pytest.param([1, 0], marks=pytest.mark.parity)]
)  # both, one after the other, take long
def test_one_is_killed_and_both_are_started_again(together, pair, tiny_folder, data_folder, tmp_path, victims):
    """At a drawn moment. The run goes on as if nothing had been, to the bit."""
    run, drawn = tmp_path / "run", random.Random(0)
    start = flags(tiny_folder, data_folder, run)
    for number, victim in enumerate(victims):
        kill_after(
            pair(*start, timeout=20), victim, run, drawn.randint(2 * number + 1, 2 * number + 2), drawn.random() * 0.2
        )
    processes = pair(*start)
    assert codes(processes) == [0, 0], [p.said()[1][-2000:] for p in processes]
    assert outcome(run) == outcome(together[0])


def test_partners_that_never_come(command, tiny_folder, tmp_path):
    address = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--process_id=1", "--peer_timeout=1"]
    start = command("unlearn", f"--config.model.path={tiny_folder}", f"--workdir={tmp_path / 'run'}", *address)
    said = subprocess.run(start, capture_output=True, text=True, timeout=120)
    assert said.returncode not in (0, None) and "never came" in said.stderr.strip().splitlines()[-1]


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
    assert said.code == 2 and len(said.err.strip().splitlines()) == 1
    assert all(word in said.err for word in words)


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
