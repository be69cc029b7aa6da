"""The seam of model families, by a fused toy family with windows that is added from outside the package."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_family
from flax import traverse_util
from safetensors.numpy import load_file, save_file

import pmc_jax
from pmc_jax import config
from pmc_jax.data.packing import FORGET, Packing, Row, pack
from pmc_jax.distributed.meshes import make_mesh, mesh_of, put
from pmc_jax.errors import UserError
from pmc_jax.models import attention, find_family, lora, pretrained, weights
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad, with_drafts
from pmc_jax.training.forward import compute_terms

WINDOW = toy_family.RAW["sliding_window"]
EVERY_FAMILY = pytest.mark.parametrize("family", ["toy_family:FAMILY", "toy_family:FULL_NORM_FAMILY"])


def make_toy(tokenizer, family="toy_family:FAMILY", **changes):
    """A toy model whose parameters are all random, norms too."""
    raw = toy_family.RAW | {"eos_token_id": tokenizer.eos_token_id} | changes
    fresh = pretrained.create(raw, tokenizer, seed=0, mesh=make_mesh(1, 1, jax.devices()[:1]), family=family)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: put(np.asarray(x) + 0.1 * rng.normal(size=x.shape), x.sharding), fresh.params)
    return fresh.replace(params=jax.tree.map(lambda x: x.astype(np.float32), params))


@pytest.fixture(scope="module")
def toy(tokenizer):
    return make_toy(tokenizer)


def draw_tokens(count, length, seed=0):
    return np.random.default_rng(seed).integers(5, 500, (count, length))


def widened(checkpoint):
    """The same parameters without windows."""
    layers = tuple(dataclasses.replace(kind, window=None) for kind in checkpoint.config.layers)
    shape = dataclasses.replace(checkpoint.config, layers=layers)
    return checkpoint.replace(config=shape, model=checkpoint.model.clone(config=shape))


@EVERY_FAMILY
def test_a_window_restricts_and_nothing_else(tokenizer, family):
    """Within the window a model without one gives the same logits; beyond it others, and padding changes nothing."""
    toy = make_toy(tokenizer, family)
    tokens_BT = draw_tokens(2, 30)
    windowed, free = (np.asarray(pmc_jax.logits(model, tokens_BT)) for model in (toy, widened(toy)))
    np.testing.assert_allclose(windowed[:, :WINDOW], free[:, :WINDOW], atol=1e-5)
    assert np.abs(windowed[:, WINDOW:] - free[:, WINDOW:]).max() > 0.01
    padded_BT, mask_BT = np.zeros((2, 45), int), np.zeros((2, 45), bool)
    padded_BT[0, 10:40], padded_BT[1, :30] = tokens_BT
    mask_BT[0, 10:40] = mask_BT[1, :30] = True
    padded = np.asarray(pmc_jax.logits(toy, padded_BT, mask_BT))
    np.testing.assert_allclose(padded[mask_BT].reshape(windowed.shape), windowed, atol=1e-4)


def test_what_a_position_looks_at_through_all_layers():
    """Gradients reach back one window a layer, and no further."""
    raw = toy_family.RAW | {"num_hidden_layers": 2}
    shape = toy_family.read_config(raw)
    shape = dataclasses.replace(shape, layers=(shape.layers[0],) * 2)
    model = toy_family.FAMILY.module(shape)
    one = jnp.zeros((1, 1), jnp.int32)
    params = model.init(jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool))["params"]
    tokens_BT, mask_BT = jnp.arange(30)[None], jnp.ones((1, 30), bool)
    positions_BT, mask_BTS = attention.positions_from_mask(mask_BT), attention.causal_mask(mask_BT)

    def last_state(embed):
        return jnp.sum(model.apply({"params": params | {"embed": embed}}, tokens_BT, positions_BT, mask_BTS)[0][0, -1])

    reached = np.flatnonzero(np.abs(np.asarray(jax.grad(last_state)(params["embed"]))[:30]).sum(axis=1))
    assert reached.tolist() == list(range(29 - 2 * (WINDOW - 1), 30))


@EVERY_FAMILY
@pytest.mark.parametrize("drafted", [False, True])
def test_cached_decoding_is_the_full_forward_pass(tokenizer, family, drafted):
    """Prompts and answers are several windows long; the draft is right at first and then wrong."""
    toy = make_toy(tokenizer, family)
    prompts = [draw_tokens(1, n, n)[0].tolist() for n in (5, 18, 33)]
    generator = greedy_sampler(toy, config.default()).with_sampling(max_new_tokens=24, num_samples=2)
    padded = left_pad(prompts, [str(p) for p in prompts])
    answers = generator.tokens(padded)
    if drafted:
        drafts = [[*samples[0][:10], 6, 7, 8, 9, 10] for samples in answers]
        assert generator.tokens(with_drafts(padded, drafts, toy.end_tokens, 24)) == answers
        return
    for prompt, samples in zip(prompts, answers):
        assert samples[0] == samples[1] and len(samples[0]) > 2 * WINDOW
        whole = np.array([prompt + samples[0]])
        logits_TV = np.asarray(pmc_jax.logits(toy, whole))[0]
        assert np.argmax(logits_TV[len(prompt) - 1 : -1], axis=-1).tolist() == samples[0]


@EVERY_FAMILY
def test_packed_loss_and_gradients_are_those_of_single_rows(tokenizer, family):
    """Examples share a prefix, lie in two blocks, and are longer than the window."""
    toy = make_toy(tokenizer, family)
    draw = np.random.default_rng(0)
    shared = draw.integers(5, 500, 9).tolist()
    rows = [Row(shared + draw.integers(5, 500, 12 + 5 * i).tolist(), 13 + i, 1 + i % 2) for i in range(6)]

    def loss(params, batches):
        terms = [compute_terms(toy.model, params, batch, i) for batch in batches for i in range(int(batch.used))]
        return sum(jnp.sum(t.nll_SE * jnp.where(t.group_SE == FORGET, 1.0, 1.25)) for t in terms)

    packed = pack(rows, Packing(9, 32, 8, 256, 8))
    assert 9 < 32 < max(len(row.tokens) for row in rows) and WINDOW < 9
    single = [pack([row], Packing(0, 64, 1, 64, 1)) for row in rows]
    found, grads = jax.value_and_grad(loss)(toy.params, [packed])
    wanted, wanted_grads = jax.value_and_grad(loss)(toy.params, single)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(wanted_grads)):
        assert np.abs(np.asarray(y)).max() > 0, path
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_and_load_give_the_same_logits(toy, tmp_path, dtype):
    cast = toy.replace(params=jax.tree.map(lambda x: x.astype(dtype), toy.params))
    folder = pmc_jax.export(cast, tmp_path / "out")
    tensors = load_file(folder / "model.safetensors")
    fused = tensors["model.layers.1.self_attn.qkv_proj.weight"]
    assert fused.shape == ((4 + 2 * 2) * 12, 32) and tensors["model.layers.3.mlp.gate_up_proj.weight"].shape == (96, 32)
    key_DKH = np.asarray(cast.params["layer_1"]["attention"]["key"])
    assert (fused[48:72] == key_DKH.transpose(1, 2, 0).reshape(24, 32)).all()
    again = pmc_jax.load(str(folder), dtype, family="toy_family:FAMILY")
    tokens_BT = draw_tokens(2, 20)
    assert (np.asarray(pmc_jax.logits(again, tokens_BT)) == np.asarray(pmc_jax.logits(cast, tokens_BT))).all()
    with pytest.raises(UserError, match="ToyForCausalLM is not supported"):
        pmc_jax.load(str(folder))
    (folder / "model.safetensors").unlink()
    weights.save_params(folder, again.params, again.family, again.model, shard_bytes=10_000)
    assert len(list(folder.glob("*.safetensors"))) > 3
    again = pmc_jax.load(str(folder), dtype, family="toy_family:FAMILY")
    assert all((a == b).all() for a, b in zip(*(map(np.asarray, jax.tree.leaves(x.params)) for x in (again, cast))))


def test_a_fused_tensor_of_another_size_is_named(toy, tmp_path):
    folder = pmc_jax.export(toy, tmp_path / "out")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"model.layers.0.mlp.gate_up_proj.weight": np.zeros((48, 32), np.float32)},
        folder / "model.safetensors",
    )
    with pytest.raises(UserError, match=r"gate_up_proj.weight is \(48, 32\), config.json says \(96, 32\)"):
        pmc_jax.load(str(folder), family="toy_family:FAMILY")


def test_adapters_of_a_fused_module(toy, tmp_path):
    """One adapter for the whole fused tensor, by the checkpoint's name; each parameter gets its rows of the change."""
    plan = lora.plan(toy.family, toy.model, 3, 6.0, "qkv_proj,down_proj")
    fresh = lora.create(toy.model, plan, 0, mesh_of(toy.params))
    assert len(fresh) == 2 * toy.config.num_layers
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), fresh)
    merged = toy.replace(
        params=lora.merge(toy.model, plan, toy.params, adapters), adapters=(plan, adapters), source="base"
    )
    folder = pmc_jax.export(merged, tmp_path / "out")
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    before = load_file(pmc_jax.export(toy, tmp_path / "before") / "model.safetensors")
    for name in ("model.layers.2.self_attn.qkv_proj", "model.layers.0.mlp.down_proj"):
        a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        np.testing.assert_allclose(tensors[f"{name}.weight"] - before[f"{name}.weight"], 2 * b @ a, atol=1e-4)
    with pytest.raises(UserError, match="has no q_proj; it has o_proj, down_proj, qkv_proj, gate_up_proj, or all"):
        lora.plan(toy.family, toy.model, 3, 6.0, "q_proj")


MESHES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import sys
import numpy as np
import pmc_jax
from pmc_jax.distributed.meshes import make_mesh
sys.path.insert(0, "tests")
tokens = np.random.default_rng(0).integers(5, 500, (4, 20))
for data, model in ((1, 1), (2, 2), (4, 1)):
    mesh = make_mesh(data, model, jax.devices()[: data * model])
    toy = pmc_jax.load(sys.argv[1], mesh=mesh, family="toy_family:FAMILY")
    query, up = toy.params["layer_0"]["attention"]["query"], toy.params["layer_0"]["mlp"]["up"]
    assert query.sharding.shard_shape(query.shape) == (32 // data, 4 // model, 12)
    assert up.sharding.shard_shape(up.shape) == (32 // data, 48 // model)
    answers = pmc_jax.sample(toy, ["Who is it?"] * 4, temperature=0.0, max_new_tokens=16)
    print(abs(np.asarray(pmc_jax.logits(toy, tokens))).sum(), answers)
    pmc_jax.export(toy, f"{sys.argv[2]}/{data}{model}")
"""


def test_a_fused_checkpoint_on_meshes(toy, tmp_path, python):
    folder = pmc_jax.export(toy, tmp_path / "in")
    done = python(MESHES, folder, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    totals, answers = zip(*(line.split(" ", 1) for line in done.stdout.splitlines()))
    assert [float(t) for t in totals] == pytest.approx([float(totals[0])] * 3, rel=1e-5) and len(set(answers)) == 1
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("in", "11", "22", "41")]
    assert len(set(written)) == 1


@pytest.mark.parametrize(
    "name, words",
    [
        ("toy_family:NONE", "no 'NONE'"),
        ("toy_family:RAW", "must be a pmc_jax.models.Family, not a dict"),
        ("Toy", "choose one of 'LlamaForCausalLM'"),
    ],
)
def test_a_wrong_family_is_refused_by_name(name, words):
    with pytest.raises(UserError, match="model.family") as caught:
        find_family(toy_family.RAW, name)
    assert words in str(caught.value)


def test_a_table_without_a_row_is_refused(tokenizer):
    family = dataclasses.replace(toy_family.FAMILY, weights=toy_family.WEIGHTS[:-1])
    with pytest.raises(UserError, match="'toy'.*no row for layer_0/mlp_post_norm/scale"):
        weights.weight_map(family, family.make_model(toy_family.RAW))


def test_every_row_of_a_table_names_a_parameter():
    """No row is dead: with all switches on, each gives a parameter."""
    paths = traverse_util.flatten_dict(weights.abstract_params(toy_family.FAMILY.make_model(toy_family.RAW)), sep="/")
    dead = [path for _, path, _ in toy_family.WEIGHTS if path.format(0) not in paths]
    assert all("bias" in path or path == "head" for path in dead)
