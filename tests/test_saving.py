"""Which rounds are saved: by their number, their size, and the first process's clock. No number of a run depends on
it.
"""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import pmc_jax
from pmc_jax.distributed import multihost
from pmc_jax.training import saving
from pmc_jax.training.checkpoint import RoundCheckpointer


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that stands still until a test moves its `now`, in seconds."""
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


def due(times, clock, rounds, seconds):
    """Which rounds are saved, of so many that last so many seconds each."""
    kept = []
    for number in range(rounds):
        clock.now += seconds
        if times.is_due(number):
            kept.append(number)
            times.saved()
    return kept


@pytest.mark.parametrize(
    ("every", "minutes", "seconds", "expected"),
    [
        (1, 10.0, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, 0.0, 10_000, [2, 5]),
        (0, 10.0, 40, []),
        (0, 2.0, 40, [2, 5]),  # when the minutes are over, and they are counted from the save on
        (0, 2.0, 50, [2, 5]),
        (0, 2.0, 121, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, 2.0, 50, [2, 3, 6, 7]),  # one or the other
        (0, 0.0, 10_000, []),
    ],
)
def test_rounds_or_minutes(clock, every, minutes, seconds, expected):
    assert due(saving.SaveTimes(every, minutes), clock, 8, seconds) == expected


def test_large_rounds_are_saved_by_time_alone():
    small, large = (
        [jax.ShapeDtypeStruct((n,), np.float32), jax.ShapeDtypeStruct((), np.int32)] for n in (2**20, 2**28)
    )
    nbytes = lambda tree: [SimpleNamespace(nbytes=x.size * x.dtype.itemsize) for x in tree]  # noqa: E731
    assert saving.save_times(-1, 10.0, nbytes(small)).every == 1
    assert saving.save_times(-1, 10.0, nbytes(large)).every == 0
    assert saving.save_times(3, 10.0, nbytes(small)).every == saving.save_times(3, 10.0, nbytes(large)).every == 3


@pytest.mark.parametrize("theirs", [True, False])
def test_the_first_process_decides(clock, monkeypatch, theirs):
    """Another process takes its word, whatever its own clock says."""
    monkeypatch.setattr(multihost, "is_primary", lambda: False)
    monkeypatch.setattr(
        multihost, "exchange", lambda mine: [b'{"value": true}' if theirs else b'{"value": false}', mine]
    )
    times = saving.SaveTimes(0, 1.0)
    clock.now += 0 if theirs else 1e6
    assert times.is_due(0) is theirs


class Killed(Exception):
    """Stands for a kill."""


def test_a_run_saved_by_time_goes_on_to_the_same_bits(clock, tiny_checkpoint, splits, small, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "QUICKLY_SAVED", 0)
    config, data = small({"rounds.minutes": 2.0}), (splits["forget20"], splits["retain80"])
    whole, history = pmc_jax.unlearn(tiny_checkpoint, *data, config)
    reported = []

    def tell(summary, *_):
        clock.now += 70
        reported.append(summary["round"])
        if reported == [0, 1, 2, 3]:
            raise Killed

    saved = []
    for _ in range(2):
        rounds = RoundCheckpointer(tmp_path / "rounds", keep=4)
        try:
            resumed, its_history = pmc_jax.unlearn(tiny_checkpoint, *data, config, rounds=rounds, on_round=tell)
        except Killed:
            pass
        rounds.close()
        saved.append(RoundCheckpointer(tmp_path / "rounds", read_only=True).all())
    assert saved == [[2], [2, 3]] and reported == [0, 1, 2, 3, 3], "the last round is always saved"
    pairs = zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in h] for h in (its_history, history)]
    assert lines[0] == lines[1]


def test_what_is_saved_may_change_on_the_way(cli, tiny_folder, data_folder, tmp_path):
    words = ["unlearn", f"--workdir={tmp_path / 'run'}", f"--config.model.path={tiny_folder}"]
    words += [f"--config.data.path={data_folder}", "--config.data.forget=forget20", "--config.data.retain=retain80"]
    words += ["--config.train.epochs=1", "--config.train.batch_size=4", "--config.sample.num_samples=2"]
    words += [
        "--config.evaluate.max_new_tokens=16",
        "--config.evaluate.retain_rows=4",
        "--config.sample.max_new_tokens=8",
    ]
    assert cli(*words).code == 0
    again = cli(*words, "--config.rounds.every=2", "--config.rounds.minutes=0", "--config.rounds.keep=3")
    assert again.code == 0 and "finished; nothing was changed" in again.out
    other = cli(*words, "--config.train.epochs=2")
    assert other.code == 2 and "train.epochs: 1 there, 2 now" in other.err
