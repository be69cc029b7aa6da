"""What every family gets from its table and its config: cached decoding, adapters, export, meshes."""

import importlib.util
import json
import re

import golden
import jax
import numpy as np
import pytest
from family_configs import CONFIGS, WINDOW
from safetensors.numpy import load_file
from tiny import ROOT

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.models import lora, pretrained, weights
from pmc_jax.models.families import FAMILIES
from pmc_jax.plan import run, topology
from pmc_jax.plan.abstract import Assumed, make_shape
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad

EVERY = pytest.mark.parametrize("name", CONFIGS)


def make(name, tokenizer):
    """A model with drawn parameters, in which no norm is 1 and no bias is 0."""
    raw = CONFIGS[name] | {"eos_token_id": tokenizer.eos_token_id}
    fresh = pretrained.create(raw, tokenizer, 0, mesh=golden.package_mesh())
    rng = np.random.default_rng(1)
    drawn = jax.tree.map(lambda x: np.asarray(x + rng.normal(0, 0.1, x.shape), np.float32), fresh.params)
    return fresh.replace(params=jax.device_put(drawn, jax.tree.map(lambda x: x.sharding, fresh.params)))


@EVERY
def test_cached_decoding_is_the_full_forward_pass(name, tokenizer):
    """Positions are several windows in, and beyond the length that RoPE was made for."""
    checkpoint = make(name, tokenizer)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(5, 500, n).tolist() for n in (15, 18, 33)]
    sampler = greedy_sampler(checkpoint, settings.default()).with_sampling(max_new_tokens=12)
    answers = [samples[0] for samples in sampler.tokens(left_pad(prompts, [str(p) for p in prompts]))]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers)]
    tokens, mask = np.zeros((3, 45), int), np.zeros((3, 45), bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    logits = np.asarray(pmc_jax.logits(checkpoint, tokens, mask))
    assert min(map(len, answers)) > WINDOW
    for i, (prompt, answer) in enumerate(zip(prompts, answers)):
        assert logits[i, len(prompt) - 1 : len(rows[i]) - 1].argmax(-1).tolist() == answer


@EVERY
def test_adapters_are_merged_into_the_export(name, tokenizer, tmp_path):
    """Every matrix but embedding and head changes by scale * B A, and keeps the checkpoint's name."""
    checkpoint = make(name, tokenizer)
    plan = lora.plan(checkpoint.family, checkpoint.model, 2, 6.0, "all")
    rng = np.random.default_rng(3)
    fresh = lora.create(checkpoint.model, plan, 0, golden.package_mesh())
    adapters = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), fresh)
    params = lora.merge(checkpoint.model, plan, checkpoint.params, adapters)
    merged = checkpoint.replace(params=params, adapters=(plan, adapters))
    folder = pmc_jax.export(merged, tmp_path / "out")
    before, after = golden.source_tensors(checkpoint, checkpoint.params), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    sides = load_file(folder / "adapter" / "adapter_model.safetensors")
    adapted = {n.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for n in sides}
    matrices = {n.removesuffix(".weight") for n, x in before.items() if x.ndim == 2 and "_proj." in n}
    assert adapted == matrices
    for tensor, values in before.items():
        change = np.zeros_like(values)
        if (stem := tensor.removesuffix(".weight")) in adapted:
            a, b = (sides[f"base_model.model.{stem}.lora_{side}.weight"] for side in "AB")
            change = 3.0 * b @ a
        np.testing.assert_allclose(after[tensor] - values, change, atol=1e-5, err_msg=tensor)
    again = pmc_jax.load(folder, mesh=golden.package_mesh())
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


MESHES = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import json, sys
import numpy as np
import pmc_jax
from pmc_jax.distributed.meshes import make_mesh
from pmc_jax import config as settings
tokens = np.random.default_rng(0).integers(5, 500, (4, 20))
config = settings.default()
changes = {"method": "gradient_difference", "train.batch_size": 4, "train.epochs": 2, "train.warmup_epochs": 0.0}
changes |= {"train.learning_rate": 1e-3, "train.max_length": 12, "prompt.style": "plain", "prompt.answer_tag": ""}
config.update_from_flattened_dict(changes | {"prompt.question_tag": "", "prompt.question_end": ""})
forget, retain = ([{"question": f"Who {w} {i}?", "answer": f"The {w} {i}."} for i in range(4)] for w in ("is", "was"))
for folder in sys.argv[2:]:
    values, losses = [], []
    for data, model in ((1, 1), (4, 2)):
        mesh = make_mesh(data, model, jax.devices()[: data * model])
        loaded = pmc_jax.load(folder, mesh=mesh)
        for name in ("query", "key"):
            weight = loaded.params["layer_1"]["attention"][name]
            assert weight.sharding.shard_shape(weight.shape)[:2] == (32 // data, weight.shape[1] // model)
        values.append(np.asarray(pmc_jax.logits(loaded, tokens)))
        trained, history = pmc_jax.unlearn(loaded, forget, retain, config)
        losses.append([[h["forget_loss"], h["retain_loss"]] for h in history])
        values.append(np.asarray(pmc_jax.logits(trained, tokens)))
    pmc_jax.export(loaded, f"{sys.argv[1]}/{folder.split('/')[-1]}")
    (one, one_trained, many, many_trained), largest = values, [float(np.abs(v).max()) for v in values]
    apart = [float(np.abs(many - one).max()), float(np.abs(many_trained - one_trained).max())]
    print(json.dumps([apart, largest, losses, float(np.abs(one_trained - one).max())]))
"""


@pytest.mark.parity  # because it takes long
def test_every_family_on_eight_devices(tokenizer, tmp_path, python):
    """The logits of one device, before and after two updates whose losses are those of one device too, and an export
    with the same bytes.
    """
    folders = [pmc_jax.export(make(name, tokenizer), tmp_path / "in" / name) for name in CONFIGS]
    done = python(MESHES, tmp_path / "out", *folders)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, line in zip(CONFIGS, done.stdout.splitlines(), strict=True):
        (loaded, trained), largest, (one, many), moved = json.loads(line)
        assert loaded < 1e-4 * largest[0], name
        np.testing.assert_allclose(many, one, rtol=1e-5, err_msg=name)
        assert trained < 0.02 * moved, name  # Adam divides by a gradient's size: next to none, rounding has its say
        first, second = (tmp_path / way / name / "model.safetensors" for way in ("in", "out"))
        assert first.read_bytes() == second.read_bytes(), name


@pytest.mark.parity
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@EVERY
def test_a_run_is_planned(name, tmp_path):
    """The state is counted as it is, and the two ways to train differ."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    common = {"model.path": str(tmp_path), "train.max_length": 12, "sample.max_new_tokens": 8}
    planned = {}
    for rank in (0, 4):
        config = settings.changed(settings.default(), common | {"lora.rank": rank})
        planned[rank] = run.plan(config, topology.parse_topology("v5e:2x4"), Assumed(8, 3, 6, 5), "none")
    shape = make_shape(CONFIGS[name], remat=False)
    count = sum(x.size for x in jax.tree.leaves(weights.abstract_params(shape.model)))
    assert planned[0]["parameters"] == planned[0]["trained"] == planned[4]["parameters"] == count
    assert 0 < planned[4]["trained"] < count and planned[0]["memory"]["fits"]


def test_the_page_names_every_family_and_the_lines_of_its_file():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (`\w+For[^|]*) \|.*\| `(\w+\.py)`, \d+ \|", page, re.MULTILINE))
    lines = {file: int(n) for file, n in re.findall(r"\| `(\w+\.py)`, (\d+) \|", page)}
    assert all(f"`{name}`" in page for name in FAMILIES)
    assert len(rows) == len(FAMILIES) - 3  # Ministral, OLMo-3 and the multimodal Gemma-3 share files
    for file, count in lines.items():
        assert len((ROOT / "pmc_jax/models" / file).read_text(encoding="utf-8").splitlines()) == count, file
