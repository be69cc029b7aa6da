"""Requests one after the other: each starts from the result of the last one, earlier ones are asked again."""

import sys

import pytest
from tiny import ROOT, SMALL

from pmc_jax import config as settings
from pmc_jax.data.questions import read_file
from pmc_jax.tracking.files import read_json

sys.path.insert(0, str(ROOT / "benchmarks"))

import sequence
import text_passages


def test_requests_are_cut_from_the_end(data_folder, tmp_path, splits):
    names = sequence.cut(str(data_folder), tmp_path, 3, 4)
    assert names == ["forget_1", "forget_2", "forget_3"]
    rows = [row for name in names for row in read_file(tmp_path / f"{name}.jsonl")]
    whole = read_file(tmp_path / "retain.jsonl") + rows
    assert [r["question"] for r in whole] == [r["question"] for r in splits["full"]] and len(rows) == 12
    assert (tmp_path / "world_facts.jsonl").exists()


def test_settings_are_read_by_their_kinds():
    values = sequence.given(["train.epochs=3", "train.learning_rate=1e-3", "pmc.keep_best=False", "seed=2"])
    assert values == {"train.epochs": 3, "train.learning_rate": 1e-3, "pmc.keep_best": False, "seed": 2}


def test_passages_are_the_same_and_differ_by_seed():
    first, again, other = (text_passages.passages(40, seed) for seed in (0, 0, 1))
    assert first == again and len(set(first)) == 40 and not set(first) & set(other)


@pytest.mark.parity
@pytest.mark.parametrize("growing", [False, True])
def test_two_requests(data_folder, tiny_folder, tmp_path, growing):
    names = sequence.cut(str(data_folder), tmp_path / "data", 2, 4)
    changes = SMALL | {"model.path": str(tiny_folder), "data.path": str(tmp_path / "data"), "data.retain": "retain"}
    config = settings.changed(settings.default(), changes | {"evaluate.max_new_tokens": 48, "rounds.keep": 1})
    steps = sequence.run(config, names, tmp_path, growing)
    assert [step["request"] for step in steps] == ["start", *names]
    start, first, second = (step["quality"] for step in steps)
    assert first["forget_1"] > start["forget_1"] + 20 and second["forget_2"] > start["forget_2"] + 20
    starts = [read_json(tmp_path / f"request_{i}" / "config.json")["settings"]["model.path"] for i in (1, 2)]
    assert starts == [str(tiny_folder), str(tiny_folder if growing else tmp_path / "request_1" / "hf")]
    written = (tmp_path / "after_1.json").stat().st_mtime_ns
    assert sequence.run(config, names, tmp_path, growing) == steps, "what is done is not done again"
    assert (tmp_path / "after_1.json").stat().st_mtime_ns >= written
