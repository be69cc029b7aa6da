"""Rounded weights: the rounding against numpy, and a model asked before and after it."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from tiny import SMALL

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.evaluate.answers import evaluate
from pmc_jax.evaluate.benchmarks.quality import load_sets
from pmc_jax.evaluate.scoring import score_sets
from pmc_jax.models.quantise import BITS, quantise, round_rows
from pmc_jax.models.weights import weight_map
from pmc_jax.sampling.generate import greedy_sampler


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rows_are_rounded_as_in_numpy(bits):
    """Loops over rows and values in float64, with the integers made explicit; a row of zeros, one of one value."""
    rng = np.random.default_rng(bits)
    matrix = rng.normal(size=(7, 33)).astype(np.float32) * 10.0 ** rng.integers(-4, 3, (7, 1)).astype(np.float32)
    matrix[2], matrix[3] = 0, -0.3
    rounded, top = np.asarray(round_rows(jnp.asarray(matrix), bits)), 2 ** (bits - 1) - 1
    for row, own in zip(matrix, rounded):
        largest = max(abs(float(x)) for x in row)
        codes = [round(float(x) / (largest / top)) if largest else 0 for x in row]
        assert max(map(abs, codes)) <= top
        np.testing.assert_allclose(own, [code * largest / top for code in codes], rtol=1e-6, atol=1e-12)
    assert len(np.unique(rounded[0])) <= 2 * top + 1
    np.testing.assert_allclose(np.asarray(round_rows(rounded, bits)), rounded, rtol=1e-6)


def assert_rounded(rounded, matrix, bits):
    """Whole steps of each row, the nearest ones. Halfway between two, either is right: processors divide otherwise."""
    steps = np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64) / (2 ** (bits - 1) - 1)
    codes = np.round(rounded / steps)
    np.testing.assert_allclose(rounded, codes * steps, rtol=1e-6)
    assert np.abs(codes - matrix / steps).max() <= 0.5 + 1e-4


def test_only_matrices_of_layers_are_rounded_by_their_output_channels(tiny_checkpoint):
    """Every parameter in the checkpoint's layout: its rows rounded, or untouched."""
    family, model = tiny_checkpoint.family, tiny_checkpoint.model
    before = traverse_util.flatten_dict(tiny_checkpoint.params, sep="/")
    sizes, kept = model.config.axis_sizes, []
    for bits in BITS.values():
        after = traverse_util.flatten_dict(quantise(family, model, tiny_checkpoint.params, bits), sep="/")
        for path, weight in weight_map(family, model).items():
            if weight.name.endswith("_proj.weight"):
                source = np.asarray(weight.to_source(np.asarray(before[path]), sizes), np.float32)
                rounded = np.asarray(weight.to_source(np.asarray(after[path]), sizes), np.float32)
                assert_rounded(rounded, source, bits)
                assert not np.array_equal(np.asarray(after[path]), np.asarray(before[path]))
            else:
                assert after[path] is before[path]
                kept.append(weight.name)
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= set(kept)


def rounded_folder(source, target, bits):
    """A copy of a checkpoint whose matrices numpy has rounded in the file."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    for name, x in tensors.items():
        if name.endswith("_proj.weight"):
            step = np.abs(x).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
            tensors[name] = (np.round(x / step) * step).astype(x.dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_an_unlearned_model_is_asked_in_fewer_bits(cli, tiny_folder, data_folder, small, tmp_path):
    """Against a checkpoint that numpy has rounded in its file; in terminal, result and page."""
    changes = {"data.path": str(data_folder), "model.path": str(tiny_folder), "evaluate.retain_rows": 8}
    config = settings.changed(small(), changes)
    given = [f"--config.{name}={settings.lookup(config, name)}" for name in (*SMALL, *changes)]
    assert cli("unlearn", *given, f"--workdir={tmp_path / 'pmc'}").code == 0
    unlearned = tmp_path / "pmc" / "hf"
    given += ["--config.evaluate.leak_samples=0", "--config.evaluate.relearn_rows=0", "--config.evaluate.benchmarks="]
    given += [f"--config.model.path={unlearned}", "--config.evaluate.quantise=int8,int4"]
    given += [f"--config.evaluate.original_model={tiny_folder}"]
    said = cli("evaluate", *given, f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["quantised"]) == ["as it is", "int8", "int4"]
    assert result["quantised"]["as it is"]["summary"] == result["model"]

    sets = load_sets(config)
    for kind, bits in BITS.items():
        sampler = greedy_sampler(pmc_jax.load(str(rounded_folder(unlearned, tmp_path / kind, bits))), config)
        entry = result["quantised"][kind]
        wanted = json.loads(json.dumps(evaluate(sampler, sets, show=False).summary()))
        assert entry["summary"] == wanted
        scores = score_sets(sampler, {"forget": [{k: r[k] for k in ("question", "answer")} for r in sets["forget"]]})
        p_N = [np.exp(np.mean(own[0].log_probs)) for own in scores["forget_Q_A_Prob"]]
        assert entry["probability"]["mean"] == pytest.approx(np.mean(p_N), rel=1e-4)
    shown = "Rounded weights"
    assert shown in said.out and shown in (tmp_path / "run" / "report.html").read_text()
    assert "General ability" in said.out and result["ability"]["before"]["perplexity"]["rows"] == 32
    answers = result["fluency"]["forget_answers"]
    assert answers["fluent"] + answers["refused"] + answers["neither"] == pytest.approx(1) and answers["rows"] == 8
    last = result["quantised"]["int4"]["summary"]["unlearn_quality"]
    assert f"{last:.1f}" in said.out


def test_other_kinds_of_numbers_are_refused():
    with pytest.raises(UserError, match="evaluate.quantise='int2': must be int8, int4"):
        settings.check(settings.changed(settings.default(), {"evaluate.quantise": "int2"}))
