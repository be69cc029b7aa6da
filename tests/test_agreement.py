"""Processes that were told different things find out before they compute anything together."""

import subprocess
import threading

import pytest
from held import PATIENCE
from lines import own_lines
from test_hosts import reserved_address

from pmc_jax.distributed import agreement
from pmc_jax.distributed.agreement import Board, SharedError, check_same, post, together
from pmc_jax.errors import UserError


class Service:
    """JAX's coordination service, for threads in the place of processes."""

    def __init__(self):
        self.entries, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            assert key not in self.entries, "an entry is written once"
            self.entries[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        import jax

        with self.changed:
            if not self.changed.wait_for(lambda: key in self.entries, milliseconds / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
            return self.entries[key]


@pytest.fixture
def everyone(monkeypatch):
    """everyone(function of the process) -> what it returned or raised on each of three processes."""
    here = threading.local()
    monkeypatch.setattr(agreement, "board", lambda: here.board)

    def run(function, processes=3, service=None):
        service, outcomes = service or Service(), [None] * processes

        def process(i):
            here.board = Board(service, processes, i)
            try:
                outcomes[i] = function(i)
            except UserError as error:
                outcomes[i] = error

        threads = [threading.Thread(target=process, args=(i,)) for i in range(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return outcomes

    return run


def test_a_process_on_its_own_asks_nobody():
    assert post("start", {"seed": 1}, timeout=1) == [{"seed": 1}]
    assert together("data", lambda: 3, lambda x: {"x": x}, "") == 3
    with pytest.raises(UserError, match="no such file"):
        together("data", lambda: (_ for _ in ()).throw(UserError("no such file")), lambda x: {}, "")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("seed", [0, 0, 1], ["seed: 0 on process 0, 1 on process 2"]),
        ("verb", ["unlearn", "finetune", "unlearn"], ['verb: "unlearn" on process 0, "finetune" on process 1']),
        ("--workdir", ["/a/0", "/a/1", "/a/2"], ['"/a/0" on process 0, "/a/1" on process 1']),
        ("jax", ["0.10.2", "0.11.0", "0.10.2"], ["jax: ", "0.11.0"]),
        ("forget", ["a" * 64, "a" * 63 + "b", "a" * 64], ["forget: ", "...aaa", 'b" on process 1']),
        ("--round", [None, 3, None], ["--round: null on process 0, 3 on process 1"]),
    ],
)
def test_what_differs_is_named_on_every_process(everyone, name, values, words):
    errors = everyone(lambda i: check_same("start", post("start", {name: values[i], "same": 1}, PATIENCE), "say why"))
    assert len({str(error) for error in errors}) == 1 and isinstance(errors[0], SharedError)
    assert all(word in str(errors[0]) for word in (*words, "say why")) and "same" not in str(errors[0])


def test_many_differences_stay_one_short_line(everyone):
    told = [{f"section.name_{k}": "x" * 300 + str(i) for k in range(50)} for i in range(3)]
    errors = everyone(lambda i: check_same("start", post("start", told[i], PATIENCE), "remedy"))
    assert all("and 47 more" in str(error) and len(str(error)) <= 600 for error in errors)


def test_the_same_everywhere_goes_on(everyone):
    assert everyone(lambda i: together("data", lambda: i, lambda _: {"forget": "abc"}, "")) == [0, 1, 2]


def test_data_that_one_process_cannot_read_ends_all(everyone):
    def read(i):
        if i == 1:
            raise UserError("f.jsonl: no such file")
        return i

    errors = everyone(lambda i: together("data", lambda: read(i), lambda _: {}, ""))
    assert [str(error) for error in errors] == ["process 1 of 3: f.jsonl: no such file"] * 3
    errors = everyone(lambda i: together("data", lambda: read(1), lambda _: {}, ""))
    assert [str(error) for error in errors] == ["f.jsonl: no such file"] * 3


class Meeting(Service):
    """Whoever has written goes on when all of `parties` have: none of them is late, however busy the machine is."""

    def __init__(self, parties):
        super().__init__()
        self.barrier = threading.Barrier(parties)

    def key_value_set(self, key, value):
        super().key_value_set(key, value)
        self.barrier.wait(PATIENCE)


def test_a_process_that_says_nothing_is_named(everyone):
    errors = everyone(lambda i: None if i == 2 else post("start", {}, timeout=1), service=Meeting(2))
    assert errors[2] is None and all(
        "process 2 of 3 did not say its start within 1 seconds" in str(e) for e in errors[:2]
    )


def test_two_runs_in_one_step_are_refused_at_once(command, tmp_path):
    """As `srun -n 2` starts them, each with a seed and a workdir of its own; neither model nor data are looked at."""
    started = []
    with reserved_address() as address:
        for i in range(2):
            peers = [f"--coordinator={address}", "--num_processes=2", f"--process_id={i}", f"--peer_timeout={PATIENCE}"]
            words = ["unlearn", "--config.model.path=none", f"--config.seed={i}", f"--workdir={tmp_path / str(i)}"]
            started.append(subprocess.Popen(command(*words, *peers), stderr=subprocess.PIPE, text=True))
        said = [process.communicate(timeout=PATIENCE)[1] for process in started]
    for process, text in zip(started, said):
        line = own_lines(text)[-1]
        assert process.returncode == 2 and "Traceback" not in text, text
        assert "--workdir" in line and "seed: 0 on process 0, 1 on process 1" in line
    assert not list(tmp_path.iterdir())
