"""What a run says of its speed, and what it can be asked for: a profile of some rounds, a line at each phase."""

import json
import logging
import re

import pytest
from lines import refused

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.methods.finetune import finetune
from pmc_jax.plan import roofline
from pmc_jax.runs.watch import RunWatch, profiled_rounds, speed_of
from pmc_jax.sampling.generate import text_of
from pmc_jax.training.watch import Watch, Worked


def test_a_speed_is_work_by_time():
    speed = speed_of(Worked(1200, 300, 4.0, sampled_tokens=50, sample_seconds=2.0), ideal_seconds=1.0)
    assert speed.pop("peak_memory") > 2**20
    assert speed == {"tokens_per_second": 300.0, "answer_tokens_per_second": 25.0, "mfu": 0.25}


def test_what_was_not_done_has_no_speed():
    """Rounds in which nothing was sampled, or whose updates an earlier start has made; and an unknown chip."""
    assert list(speed_of(Worked(), 0.0).values())[:3] == [None, None, None]
    assert list(speed_of(Worked(10, 5, 1.0, 0, 0.0), None).values())[:3] == [10.0, None, None]


def test_the_share_of_a_chip_that_is_known(tiny_checkpoint, tmp_path, monkeypatch):
    """Two FLOPs a parameter and position forward, four backward; the head at labels alone."""
    monkeypatch.setattr(roofline, "peak_of", lambda kind: roofline.Peak(1e9, 1e9))
    watch = RunWatch(tiny_checkpoint, tmp_path)
    watch.worked(0, Worked(positions=100, labels=30, update_seconds=2.0))
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert watch.speed["mfu"] == pytest.approx((6 * 2 * layer * 100 + 6 * 512 * 64 * 30) / 2e9)


class Told(Watch):
    """Keeps what it is told."""

    def __init__(self):
        self.rounds, self.around_rounds = {}, []

    def around(self, number):
        self.around_rounds.append(number)
        return super().around(number)

    def worked(self, number, worked):
        self.rounds[number] = worked


def test_tokens_are_counted_without_padding(tiny_checkpoint, splits, small):
    told, config, text = Told(), small({"train.epochs": 2}), text_of(tiny_checkpoint, small())
    finetune(tiny_checkpoint, splits["forget20"], config, watch=told)
    rows = [training_row(text, r["question"], r["answer"], 200, FORGET) for r in splits["forget20"]]
    prefix = next(i for i, column in enumerate(zip(*(row.tokens for row in rows))) if len(set(column)) > 1)
    assert told.around_rounds == [0, 1] and told.rounds[0]._replace(update_seconds=0.0) == Worked(
        positions=sum(len(row.tokens) for row in rows) - 6 * prefix,  # 8 rows in two updates, which read it once each
        labels=sum(len(row.tokens) - row.start for row in rows),
    )
    assert told.rounds[1].update_seconds > 0


@pytest.mark.parametrize(("text", "rounds"), [("", set()), ("2", {2}), ("2,3", {2, 3}), ("0, 3", {0, 3})])
def test_rounds_to_profile(text, rounds):
    assert profiled_rounds(text, 4) == rounds


@pytest.fixture
def quiet_again():
    """The log of this process as it was."""
    log = logging.getLogger("pmc_jax")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate, log.level = before
    log.setLevel(before[2])


def test_a_run_that_is_watched(cli, tiny_folder, data_folder, tmp_path, quiet_again):
    run = tmp_path / "run"
    flags = {"model.path": tiny_folder, "data.path": data_folder, "data.forget": "forget20", "data.retain": "retain80"}
    flags |= {"train.epochs": 2, "train.batch_size": 4, "sample.num_samples": 2, "sample.max_new_tokens": 8}
    flags |= {"evaluate.max_new_tokens": 8, "evaluate.retain_rows": 4}
    words = ["unlearn", f"--workdir={run}", *(f"--config.{name}={value}" for name, value in flags.items())]
    for rounds in ("2", "0,x", "-1"):
        assert refused(cli(*words, f"--profile={rounds}"), f"--profile={rounds}", "0 to 1")
    said = cli(*words, "--profile=1", "--verbosity=0")
    assert said.code == 0, said.err
    assert [p.parent.parent.parent.parent.name for p in run.glob("profile/**/*.xplane.pb")] == ["round_00001"]
    logged = re.findall(r"^pmc-jax: \d\d:\d\d:\d\d (.*)$", said.err, re.MULTILINE)
    rounds = " ".join(logged[logged.index("round 0") :])
    assert "round 0 sample score update compile update save round 1 sample score update" in rounds, logged
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    speeds = [line["speed"] for line in lines if line["kind"] == "round"]
    assert len(speeds) == 2 and all("speed" not in line for line in lines if line["kind"] != "round")
    for speed in speeds:
        assert speed["tokens_per_second"] > 0 and speed["answer_tokens_per_second"] > 0 and speed["peak_memory"] > 2**20
        assert speed["mfu"] is None, "a CPU's peak is not known"
    events = b"".join(file.read_bytes() for file in (run / "events").iterdir())
    assert events.count(b"speed/tokens_per_second") == events.count(b"speed/peak_memory") == 2
    page = (run / "report.html").read_text()
    assert "training tokens a second" in page and "Answer tokens a second" in page and "GiB of memory" in page
    assert "utilisation" not in page
