"""Low-rank adapters: where they start, what is trained, and what is written."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import pmc_jax
from pmc_jax.data.packing import GROUPS, Packing, Row, pack
from pmc_jax.distributed.meshes import mesh_of, put
from pmc_jax.errors import UserError
from pmc_jax.models import lora, pretrained
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.update import Recipe, create_state, put_batch, update

LORA = {"lora.rank": 4, "lora.alpha": 8.0, "train.learning_rate": 2e-2}


def leaves(tree):
    return [np.array(x) for x in jax.tree.leaves(tree)]


def drawn(checkpoint, targets="all", rank=3):
    """A plan and adapters that change something."""
    plan = lora.plan(checkpoint.family, checkpoint.model, rank, 6.0, targets)
    fresh = lora.create(checkpoint.model, plan, 0, mesh_of(checkpoint.params))
    rng = np.random.default_rng(1)
    return plan, jax.tree.map(lambda x: put(0.1 * rng.normal(size=x.shape).astype(np.float32), x.sharding), fresh)


@pytest.mark.parametrize("which", ["tiny_checkpoint", "tiny_phi"])
def test_it_starts_at_the_model_as_it_is(request, which):
    checkpoint = request.getfixturevalue(which)
    plan = lora.plan(checkpoint.family, checkpoint.model, 2, 4.0, "all")
    assert len(plan.weights) == {"tiny_checkpoint": 7, "tiny_phi": 6}[which] * checkpoint.config.num_layers
    adapters = lora.create(checkpoint.model, plan, 0, mesh_of(checkpoint.params))
    merged = lora.merge(checkpoint.model, plan, checkpoint.params, adapters)
    assert all((a == b).all() for a, b in zip(leaves(merged), leaves(checkpoint.params)))


def test_only_the_targets_change(tiny_checkpoint):
    plan, adapters = drawn(tiny_checkpoint, "q_proj,down_proj")
    merged = lora.merge(tiny_checkpoint.model, plan, tiny_checkpoint.params, adapters)
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(tiny_checkpoint.params)):
        assert (path[-1].key in ("query", "down")) == bool((np.asarray(new) != np.asarray(old)).any()), path
    query = next(p for p, w in plan.weights if "q_proj" in w.name)
    change = 2.0 * np.asarray(adapters[query]["b"]) @ np.asarray(adapters[query]["a"])  # [N H, D], alpha / rank = 2
    base, new = (np.asarray(params["layer_0"]["attention"]["query"]) for params in (tiny_checkpoint.params, merged))
    np.testing.assert_allclose(new - base, change.T.reshape(base.shape), atol=1e-5)


def test_gradients_are_those_of_the_weights_through_the_product(tiny_checkpoint):
    """dL/dA = scale B' dL/dW, dL/dB = scale dL/dW A', seen in the first moments after one update."""
    plan, adapters = drawn(tiny_checkpoint)
    rng = np.random.default_rng(0)
    rows = [Row(rng.integers(5, 500, 12).tolist(), 6, GROUPS[i % 2]) for i in range(4)]
    batch = put_batch(pack(rows, Packing(0, 64, 1, 64, len(rows)), 1), mesh_of(tiny_checkpoint.params))
    recipe = Recipe(1e-3, 0.0, 0, 10**9, 0.0, "float32", hyper=(("retain_weight", 1.5),))
    merged = lora.merge(tiny_checkpoint.model, plan, tiny_checkpoint.params, adapters)
    _, of_whole = update(tiny_checkpoint.model, recipe, create_state(merged, recipe), batch)
    state, metrics = update(
        tiny_checkpoint.model, recipe._replace(lora=plan), create_state(adapters, recipe), batch, tiny_checkpoint.params
    )
    assert float(metrics["loss"]) == pytest.approx(float(of_whole["loss"]), rel=1e-5)
    # Adam's first moment after one step is a tenth of the gradient.
    mu = state.opt_state[1].mu
    whole_state, _ = update(tiny_checkpoint.model, recipe, create_state(merged, recipe), batch)
    flat = {
        p: np.asarray(x) * 10
        for p, x in pretrained.weights.traverse_util.flatten_dict(whole_state.opt_state[1].mu, sep="/").items()
    }
    for path, weight in plan.weights:
        gradient = weight.to_source(flat[path], tiny_checkpoint.config.axis_sizes)
        for side, wanted in (
            ("a", 2 * np.asarray(adapters[path]["b"]).T @ gradient),
            ("b", 2 * gradient @ np.asarray(adapters[path]["a"]).T),
        ):
            np.testing.assert_allclose(
                np.asarray(mu[path][side]) * 10, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max() + 1e-9
            )


@pytest.fixture(scope="module")
def unlearned(tiny_checkpoint, splits, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    before = leaves(tiny_checkpoint.params)
    rounds = RoundCheckpointer(folder / "rounds", 2)
    config = small(LORA | {"train.epochs": 4})
    found, history = pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=rounds)
    rounds.close()
    assert all((a == b).all() for a, b in zip(before, leaves(tiny_checkpoint.params))), "the given one is left alone"
    return found, history, folder


def test_unlearning_trains_adapters_alone(unlearned, tiny_checkpoint, splits):
    found, history, folder = unlearned
    assert history[-1]["stored_score"] < history[0]["stored_score"]
    assert history[-1]["reward_mean"] > history[0]["reward_mean"] + 0.1, (
        "fresh answers have moved away from the original ones"
    )
    merged = lora.merge(tiny_checkpoint.model, found.adapters[0], tiny_checkpoint.params, found.adapters[1])
    assert all((a == b).all() for a, b in zip(leaves(merged), leaves(found.params)))
    embed = np.asarray(tiny_checkpoint.params["embed"])
    assert (np.asarray(found.params["embed"]) == embed).all()
    on_disk = sum(f.stat().st_size for f in (folder / "rounds" / "3").rglob("*") if f.is_file())
    assert on_disk < 3 * sum(x.nbytes for x in leaves(tiny_checkpoint.params)), (
        "a round holds adapters, not parameters and moments"
    )


def test_a_run_resumes_to_the_same_bits(unlearned, tiny_checkpoint, splits, small, tmp_path):
    found, history, _ = unlearned
    first = RoundCheckpointer(tmp_path / "rounds", 2)

    def stop(summary, *_):
        if summary["round"] == 2:
            raise KeyboardInterrupt

    config = small(LORA | {"train.epochs": 4})
    with pytest.raises(KeyboardInterrupt):
        pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=first, on_round=stop)
    first.close()
    again = RoundCheckpointer(tmp_path / "rounds", 2)
    assert again.latest() == 1
    resumed, _ = pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=again)
    again.close()
    assert all((a == b).all() for a, b in zip(leaves(resumed.params), leaves(found.params)))


def test_export_holds_both(unlearned, tmp_path):
    found, _, _ = unlearned
    folder = pmc_jax.export(found, tmp_path / "out")
    again = pmc_jax.load(str(folder))
    assert all((a == b).all() for a, b in zip(leaves(again.params), leaves(found.params)))
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (4, 64)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 4


def test_an_unknown_target_is_refused(tiny_checkpoint):
    with pytest.raises(
        UserError, match="has no qproj; it has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or all"
    ):
        lora.plan(tiny_checkpoint.family, tiny_checkpoint.model, 4, 8.0, "qproj")
