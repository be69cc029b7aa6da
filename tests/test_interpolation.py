"""The result lies between the start parameters and the trained ones. Sampling and training do not know of it."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_methods import same_bits, without_seconds
from test_plan_parts import small_plan
from test_resume import arguments
from test_rivals import CHANGES
from tiny import LLAMA

import pmc_jax


@pytest.fixture
def unlearn(tiny_checkpoint, splits, small):
    """unlearn(changes) -> (checkpoint, history, models that were evaluated)."""

    def run(changes, keep_start=True):
        evaluated = []

        def on_evaluate(number, model):  # its arrays are given away to the next update
            evaluated.append(model.replace(params=jax.tree.map(np.array, model.params)))

        start = tiny_checkpoint.replace(params=jax.tree.map(lambda x: x + 0, tiny_checkpoint.params))
        calls = dict(keep_start=keep_start, on_evaluate=on_evaluate)
        config = small(CHANGES | {"evaluate.every": 1} | changes)
        return *pmc_jax.unlearn(start, splits["forget20"], splits["retain80"][:8], config, **calls), evaluated

    return run


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kl_weight", [0.0, 1.0])
def test_the_result_lies_on_the_way(unlearn, tiny_checkpoint, rank, kl_weight):
    changes = {"lora.rank": rank, "pmc.kl_weight": kl_weight}
    trained, history, halfway = unlearn(changes)
    between, told, evaluated = unlearn(changes | {"train.interpolation": 0.25})
    assert without_seconds(told) == without_seconds(history), "it was sampled from, and trained, as without"
    for pair in ((trained, between), (halfway[0], evaluated[0])):
        for start, end, result in zip(*(jax.tree.leaves(c.params) for c in (tiny_checkpoint, *pair))):
            np.testing.assert_allclose(result - start, 0.25 * (end - start), atol=2e-7)
    assert not same_bits(trained, between) and not same_bits(halfway[0], trained)


def test_the_start_may_not_be_given_away(unlearn):
    kept, given = (unlearn({"train.interpolation": 0.5}, keep_start=keep)[0] for keep in (True, False))
    assert same_bits(kept, given)


def test_the_commands_write_it(cli, tmp_path, tiny_folder, data_folder):
    """The run's own export, that of a saved round, and one that lies elsewhere on the way."""
    run = tmp_path / "run"
    assert cli(*arguments(tiny_folder, data_folder, run), "--config.train.interpolation=0.5").code == 0
    assert cli("export", f"--workdir={run}", f"--output={tmp_path / 'round'}").code == 0
    words = "export", f"--workdir={run}", f"--output={tmp_path / 'all'}"
    assert cli(*words, "--config.train.interpolation=1").code == 0
    folders = tiny_folder, run / "hf", tmp_path / "round", tmp_path / "all"
    start, written, again, whole = (load_file(folder / "model.safetensors") for folder in folders)
    for name in start:
        np.testing.assert_array_equal(written[name], again[name])
        np.testing.assert_allclose(written[name] - start[name], 0.5 * (whole[name] - start[name]), atol=1e-7)
    assert any((written[name] != start[name]).any() for name in start)


def test_the_plan_holds_the_start(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))

    def start(**changes):
        plan = small_plan(tmp_path, "h100:1", **{name.replace("__", "."): value for name, value in changes.items()})
        return plan["held"]["start"] / plan["parameters"]

    between = {"train__interpolation": 0.5}
    assert start() == 0 and start(**between) == 4, "float32"
    compared = {"pmc__kl_weight": 1.0, "model__compute_dtype": "bfloat16"}
    assert start(**compared) == 2 and start(**compared, **between) == 6
    compared["model__compute_dtype"] = "float32"
    assert start(**compared) == start(**compared, **between) == 4, "updates read what is kept"
    assert start(**between, lora__rank=2) == start(lora__rank=2), "adapters are scaled"
