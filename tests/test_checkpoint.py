"""Rounds on disk: which arrays are written together, and that all come back as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pmc_jax
from pmc_jax import config
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import read_training
from pmc_jax.training import checkpoint
from pmc_jax.training.checkpoint import RoundCheckpointer, group_leaves
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_state


@pytest.fixture
def state(tiny_checkpoint):
    """A state whose optimizer's numbers are not all zeros."""
    recipe = make_recipe(tiny_checkpoint.family, tiny_checkpoint.model, read_training(config.default()), updates=2)
    state = start_state(tiny_checkpoint, recipe, seed=0)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jax.device_put(rng.normal(size=x.shape).astype(x.dtype), x.sharding), state)


def test_small_arrays_of_a_kind_go_together(state):
    groups = group_leaves(state)
    leaves = jax.tree.leaves(state)
    assert sorted(n for numbers in groups.values() for n in numbers) == list(range(len(leaves)))
    assert groups.keys() == {"small.float32", "small.int32"}
    for name, numbers in groups.items():
        assert {f"small.{leaves[n].dtype}" for n in numbers} == {name}


def test_large_arrays_stand_alone(state, monkeypatch):
    sizes = [x.nbytes for x in jax.tree.leaves(state)]
    monkeypatch.setattr(checkpoint, "SMALL", int(np.median(sizes)))
    groups = group_leaves(state)
    assert all(sizes[n] <= checkpoint.SMALL for numbers in groups.values() if len(numbers) > 1 for n in numbers)
    assert len(jax.tree.leaves(state)) > len(groups) > len([s for s in sizes if s > checkpoint.SMALL])


@pytest.mark.parametrize("small", [0, 1000, checkpoint.SMALL])
def test_a_round_comes_back_as_it_was(state, small, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SMALL", small)
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=1)
    rounds.save(0, state, {"history": [1.5]})
    rounds.save(1, jax.tree.map(jnp.negative, state), {"history": [1.5, 2.5]})
    restored, notes = rounds.restore(1, like=state)
    assert notes == {"history": [1.5, 2.5]} and rounds.all() == [1]
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype and a.sharding == b.sharding and (np.asarray(a) == -np.asarray(b)).all()
    rounds.close()


def test_a_reader_leaves_a_save_that_is_going_on(state, tmp_path):
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=1)
    rounds.save(0, state, {})
    rounds.close()
    half = tmp_path / "rounds" / "2.orbax-checkpoint-tmp"
    half.mkdir()
    reader = RoundCheckpointer(tmp_path / "rounds", read_only=True)
    assert reader.all() == [0] and half.exists()
    reader.close()
    writer = RoundCheckpointer(tmp_path / "rounds", keep=1)
    writer.save(1, state, {})  # before which Orbax ends its clearing up, that it does beside
    writer.close()
    assert not half.exists(), "a run that goes on clears up"


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(tiny_checkpoint, splits, small, tmp_path):
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=2)
    broken = tiny_checkpoint.replace(params=jax.tree.map(lambda x: x * np.nan, tiny_checkpoint.params))
    with pytest.raises(UserError, match="round 0, batch 0: the loss is nan, the gradient.s norm nan"):
        pmc_jax.unlearn(broken, splits["forget20"], splits["retain80"], small(), rounds=rounds)
    assert rounds.all() == []
    rounds.close()
