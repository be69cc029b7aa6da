"""float32 parameters under bfloat16 products, and what pure bfloat16 cannot do."""

import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import choose_compute_dtype
from pmc_jax.methods.finetune import finetune
from pmc_jax.models.layers import product_with_head
from pmc_jax.tracking import progress
from pmc_jax.training.precision import stuck_share, warn_if_stuck
from pmc_jax.training.update import Recipe, cast, create_state, hold_weights, put_batch, sum_micro_batches, update

RATE = 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", [1e-6, 1e-5, 1e-3, 1e-2])
def test_stuck_weights_are_those_that_bfloat16_addition_leaves_as_they_are(seed, step):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=5000) * rng.choice([1e-3, 0.03, 1.0], 5000)).astype(ml_dtypes.bfloat16)
    exact = weights.astype(np.float64)
    # Away from zero, where the unit in the last place is the weight's own.
    moved = exact + np.where(exact < 0, -step, step)
    same = moved.astype(ml_dtypes.bfloat16) == weights
    assert float(stuck_share({"w": jnp.asarray(weights)}, jnp.float32(step))) == pytest.approx(same.mean(), abs=2e-3)


def test_zero_weights_move():
    assert float(stuck_share({"w": jnp.zeros(4, jnp.bfloat16)}, jnp.float32(1e-9))) == 0


def test_a_run_in_pure_bfloat16_is_told_the_rate_and_the_remedy(capsys):
    progress.say_once.cache_clear()
    weights = {"w": jnp.full(100, 0.05, jnp.bfloat16)}
    warn_if_stuck(weights, RATE)
    line = capsys.readouterr().err
    assert "1e-05" in line and "100%" in line and "model.dtype=float32" in line and line.count("\n") == 1
    warn_if_stuck(weights, 1e-2)  # large enough
    warn_if_stuck(jax.tree.map(lambda x: x.astype(jnp.float32), weights), RATE)
    assert capsys.readouterr().err == ""


def test_gradients_of_micro_batches_are_added_in_float32():
    """1 + 255 / 512 in steps of 1 / 512: bfloat16 sums would stay at 1."""
    parts = jnp.array([1.0] + [1 / 512] * 255, jnp.bfloat16)
    value_and_grad = lambda params, i: ((parts[i].astype(jnp.float32), jnp.zeros(2)), parts[i] * params)  # noqa: E731
    batch = types.SimpleNamespace(tokens_MRT=np.zeros((256, 1, 1)), used=jnp.int32(256))
    (loss, _), grad = sum_micro_batches(value_and_grad, jnp.ones((), jnp.bfloat16), batch)
    assert grad.dtype == jnp.float32 and float(loss) == float(grad) == 1 + 255 / 512


def test_the_compute_dtype_left_open_follows_the_devices(tiny_checkpoint):
    on_cpu = meshes.mesh_of(tiny_checkpoint.params)
    abstract = jax.sharding.AbstractMesh((2, 2), ("data", "model"))
    assert (choose_compute_dtype("", on_cpu), choose_compute_dtype("", abstract)) == ("", "bfloat16")
    assert choose_compute_dtype("float32", abstract) == "float32"


def test_weights_that_updates_hand_on_are_those_that_each_would_make(fresh_checkpoint):
    """In bfloat16 beside float32 parameters; to the bit, also with what each update is told."""
    recipe = Recipe(1e-3, 0.01, 0, 10, 1.0, "bfloat16")
    rows = [Row([1, 2, *range(5, 20 + n)], 2, FORGET) for n in range(4)]
    batch = put_batch(pack(rows, Packing(0, 32, 4, 128, 4)), meshes.mesh_of(fresh_checkpoint.params))
    ends = []
    for prepare in (lambda state: state, lambda state: hold_weights(state, recipe)):
        state, told = prepare(create_state(fresh_checkpoint.params, recipe)), []
        for _ in range(3):
            state, metrics = update(fresh_checkpoint.model, recipe, state, batch)
            told.append({name: float(x) for name, x in metrics.items()})
        ends.append((state.params, state.opt_state, told))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    jax.tree.map(np.testing.assert_array_equal, state.weights, cast(state.params, "bfloat16"))
    assert told[0]["loss"] > told[-1]["loss"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_the_head_is_that_of_the_product(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, table, given = (jax.random.normal(k, s) for k, s in zip(keys, [(5, 16), (40, 16), (5, 40)]))
    exact = jax.vjp(lambda h, t: h @ t.T, hidden, table)[1](given)
    own = jax.vjp(product_with_head, hidden.astype(dtype), table.astype(dtype))[1](given)
    for a, b in zip(own, exact):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype("float32"), b, atol={"float32": 1e-5, "bfloat16": 0.1}[dtype])


@pytest.fixture(scope="module")
def losses(tiny_folder, splits):
    """{dtypes: loss by epoch} of the same small training on answers that belong to other questions."""
    rows = splits["forget20"]
    rows = [a | {"answer": b["answer"]} for a, b in zip(rows, rows[1:] + rows[:1])]
    curves = {}
    for dtype, compute in [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]:
        config = settings.changed(
            settings.default(),
            {"model.compute_dtype": compute, "train.epochs": 6, "train.batch_size": 4, "train.learning_rate": 1e-4},
        )
        progress.say_once.cache_clear()
        trained, history = finetune(pmc_jax.load(tiny_folder, dtype=dtype), rows, config)
        assert {str(x.dtype) for x in jax.tree.leaves(trained.params)} == {dtype}
        curves[dtype, compute] = np.array([h["loss"] for h in history])
    return curves


def test_mixed_precision_tracks_float32(losses):
    np.testing.assert_allclose(losses["float32", "bfloat16"], losses["float32", "float32"], rtol=0.01)


def test_pure_bfloat16_does_not(losses):
    gone = {key: curve[0] - curve[-1] for key, curve in losses.items()}
    assert gone["bfloat16", "bfloat16"] < 0.8 * gone["float32", "float32"]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_run_that_gives_its_start_away_ends_the_same(tiny_folder, splits, rank):
    config = settings.changed(settings.default(), {"train.epochs": 2, "train.batch_size": 4, "lora.rank": rank})
    ends = []
    for keep in (True, False):
        start = pmc_jax.load(tiny_folder)
        trained, _ = finetune(start, splits["forget20"], config, keep_start=keep)
        ends.append(trained.params)
        assert all(x.is_deleted() != (keep or rank > 0) for x in jax.tree.leaves(start.params))
    jax.tree.map(np.testing.assert_array_equal, *ends)
