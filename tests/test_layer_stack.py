"""Layers in a loop over stacked parameters: the same numbers as layer by layer, in training and in sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_family

import pmc_jax
from pmc_jax import config
from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.questions import read_file
from pmc_jax.methods.settings import read_training
from pmc_jax.methods.supervised import FinetuneSource
from pmc_jax.models import LayerKind
from pmc_jax.models.attention import SlotsFirst, causal_mask, positions_from_mask
from pmc_jax.models.layer_stack import NO_STACK, StackPlan, plan_stack, stack_layers, stack_shapes, unstack_layers
from pmc_jax.models.pretrained import create
from pmc_jax.sampling.generate import greedy_sampler, round_sampler
from pmc_jax.sampling.prompts import left_pad, with_drafts
from pmc_jax.training import checkpoint
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import fit
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import other_layout, start_state

LAYERS = 5  # two periods of two kinds, and one layer behind them
FULL, NEAR, FAR = (LayerKind(None, window=w) for w in (None, 4, 9))


@pytest.mark.parametrize(
    "layers, plan",
    [
        ([FULL] * 3, StackPlan(1, 3)),
        ([NEAR, FULL] * 2 + [NEAR], StackPlan(2, 4)),
        ([NEAR, NEAR, FULL] * 2 + [NEAR, NEAR], StackPlan(3, 6)),
        ([FULL], NO_STACK),
        ([NEAR, FAR, FULL, FULL], NO_STACK),
    ],
)
def test_which_layers_are_stacked(layers, plan):
    assert plan_stack(tuple(layers)) == plan


@pytest.fixture(scope="module")
def toy(tokenizer):
    made = create(toy_family.RAW | {"num_hidden_layers": LAYERS}, tokenizer, 0, family="toy_family:FAMILY")
    rng = np.random.default_rng(0)
    return made.replace(params=jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(x.dtype), made.params))


def looped(checkpoint, turns=1):
    return checkpoint.replace(model=checkpoint.model.clone(scan=turns))


def test_stacks_hold_the_layers_in_their_order(toy):
    stacked = stack_layers(toy.config.layers, toy.params)
    assert stacked.keys() == {"embed", "final_norm", "stack_0", "stack_1", "layer_4"}
    for name, i, stack, row in ((f"layer_{i}", i, f"stack_{i % 2}", i // 2) for i in range(4)):
        of_layer = jax.tree.map(lambda x, s, row=row: s[row].reshape(x.shape), toy.params[name], stacked[stack])
        same = jax.tree.map(lambda x, s: bool(jnp.all(s == x)), toy.params[name], of_layer)
        assert all(jax.tree.leaves(same)), i
    assert stack_layers(toy.config.layers, stacked) is stacked
    again = unstack_layers(toy.config.layers, stacked, toy.params)
    jax.tree.map(np.testing.assert_array_equal, again, toy.params)
    assert unstack_layers(toy.config.layers, again, toy.params) is again
    like = stack_shapes(toy.config.layers, toy.params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == jax.tree.map(lambda x: (x.shape, x.dtype), stacked)


@pytest.mark.parametrize("turns", [1, 9])
@pytest.mark.parametrize("remat", [False, True])
def test_forward_and_gradients_are_those_of_single_layers(toy, turns, remat):
    tokens_BT, mask_BT = jnp.arange(5, 45).reshape(2, 20), jnp.ones((2, 20), bool)

    def outputs(model, params):
        inputs = tokens_BT, positions_from_mask(mask_BT), causal_mask(mask_BT)
        hidden_BTD, _, third_BTD = model.clone(remat=remat).apply({"params": params}, *inputs, hidden_layer=2)
        return hidden_BTD, third_BTD

    def loss(model):
        return jax.value_and_grad(lambda p: sum(jnp.sum(jnp.sin(x)) for x in outputs(model, p)))(toy.params)

    for one, other in zip(outputs(toy.model, toy.params), outputs(looped(toy, turns).model, toy.params)):
        np.testing.assert_allclose(one, other, atol=1e-5)
    (value, grads), (wanted, wanted_grads) = loss(looped(toy, turns).model), loss(toy.model)
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=str(path))


@pytest.mark.parametrize("drafted", [False, True])
def test_a_cache_that_is_only_read_gives_the_same_answers(toy, drafted):
    """Drawn answers of many lengths, so that rows move between batches and slots are added."""
    settings = config.default()
    settings.sample.num_samples, settings.sample.max_new_tokens, settings.sample.temperature = 6, 48, 1.5
    prompts = left_pad([list(range(5, 5 + n)) for n in (5, 18, 33, 9)], ["a", "b", "c", "d"])
    toy = toy.replace(end_tokens=tuple(range(0, 40)))  # answers end at any time
    if drafted:
        greedy = greedy_sampler(toy, settings).tokens(prompts)
        prompts = with_drafts(prompts, [samples[0][:12] for samples in greedy], toy.end_tokens, 48)
    answers = round_sampler(toy, settings).tokens(prompts)
    sampler = round_sampler(looped(toy), settings)
    assert "stack_1" in sampler.params and sampler.tokens(prompts) == answers
    assert len({len(tokens) for samples in answers for tokens in samples}) > 5


def test_the_cache_keeps_its_kind():
    """Slots are added behind the others, whatever the axis of the head width."""
    from pmc_jax.sampling.decode import pad_slots

    keys, values = np.ones((3, 2, 1, 4, 4)), np.ones((3, 2, 1, 4, 4))
    (padded,) = pad_slots([SlotsFirst(keys, values)], 6)
    assert [x.shape for x in padded] == [(3, 2, 1, 6, 4)] * 2 and isinstance(padded, SlotsFirst)
    ((keys, values),) = pad_slots([(keys[0], values[0])], 6)
    assert keys.shape == (2, 1, 4, 6) and values.shape == (2, 1, 6, 4)


SETTINGS = {
    "method": "cross_entropy",
    "train.epochs": 3,
    "train.batch_size": 4,
    "train.warmup_epochs": 0.0,
    "train.learning_rate": 3e-3,
}


@pytest.fixture
def trained_for(tmp_path):
    """trained_for(rounds, checkpoint, folder) -> (checkpoint, history) after so many rounds of three."""

    def train(rounds, checkpoint, folder="rounds"):
        settings = config.changed(config.default(), SETTINGS)
        draw = np.random.default_rng(1)
        rows = [Row(draw.integers(5, 40, 20 + i % 9).tolist(), 8, FORGET) for i in range(8)]
        source = FinetuneSource(rows, 3, 4, 0)
        source.rounds = rounds
        saved = RoundCheckpointer(tmp_path / folder)
        made = fit(checkpoint, source, read_training(settings), rounds=saved)
        saved.close()
        return made

    return train


def assert_same_training(one, other):
    """Histories, and parameters by layer."""
    (checkpoint, history), (wanted, wanted_history) = one, other
    losses = [[line["loss"] for line in lines] for lines in (history, wanted_history)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0]
    assert checkpoint.params.keys() == wanted.params.keys()
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(checkpoint.params), jax.tree.leaves(wanted.params), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=str(path))


def test_a_stacked_state_is_trained_to_the_same_parameters(toy, trained_for):
    assert_same_training(trained_for(3, looped(toy), "stacked"), trained_for(3, toy, "layers"))


@pytest.mark.parametrize("small", [0, checkpoint.SMALL], ids=["each array alone", "small ones together"])
@pytest.mark.parametrize("first", ["stacked", "layers"])
def test_a_round_of_one_layout_is_read_in_the_other(toy, trained_for, first, small, monkeypatch):
    """A run that began on one kind of device goes on, on another one, as if it had been there from the beginning."""
    monkeypatch.setattr(checkpoint, "SMALL", small)
    kinds = {"stacked": looped(toy), "layers": toy}
    begun, other = kinds.pop(first), kinds.popitem()[1]
    trained_for(2, begun)
    gone_on, whole = trained_for(3, other), trained_for(3, other, "whole")
    assert len(gone_on[1]) == 3
    assert_same_training(gone_on, whole)


@pytest.mark.parametrize("changes", [{"train.optimizer": "adafactor"}, {"lora.rank": 2}], ids=str)
def test_what_cannot_be_stacked_is_not(toy, changes):
    """Adafactor takes means over an array, and adapters are few."""
    settings = read_training(config.changed(config.default(), SETTINGS | changes))
    recipe = make_recipe(toy.family, looped(toy).model, settings, updates=2)
    assert "stack_0" not in start_state(looped(toy), recipe, 0).params
    assert other_layout(looped(toy), recipe) is None


@pytest.mark.parametrize("keep_start", [True, False])
def test_the_start_is_kept_or_given_away(toy, keep_start):
    """Given away, its layers are gone at once: they lie in the stacks."""
    own = toy.replace(params=jax.tree.map(jnp.copy, toy.params))
    settings = read_training(config.changed(config.default(), SETTINGS))
    recipe = make_recipe(own.family, looped(own).model, settings, updates=2)
    state = start_state(looped(own), recipe, 0, keep_start)
    assert own.params["layer_0"]["mlp"]["up"].is_deleted() != keep_start
    assert (state.params["embed"] is own.params["embed"]) != keep_start
    assert state.params["layer_4"]["mlp"]["up"].shape == own.params["layer_4"]["mlp"]["up"].shape


@pytest.mark.parametrize("method", ["pmc", "npo"])
def test_a_start_that_is_given_away_is_asked_before(tiny_checkpoint, data_folder, method):
    """Its own answers, and its likelihood of the true ones, are had before its layers go into the stacks."""
    changes = {"method": method, "train.epochs": 1, "train.batch_size": 4, "sample.num_samples": 2}
    settings = config.changed(config.default(), changes | {"sample.max_new_tokens": 8, "train.learning_rate": 1e-3})
    rows = read_file(str(data_folder / "forget20.jsonl")), read_file(str(data_folder / "retain80.jsonl"))
    forget = rows[0] if method == "npo" else [row["question"] for row in rows[0]]
    own = looped(tiny_checkpoint.replace(params=jax.tree.map(jnp.copy, tiny_checkpoint.params)))
    unlearned, history = pmc_jax.unlearn(own, forget, rows[1], settings, keep_start=False)
    assert own.params["layer_0"]["mlp"]["up"].is_deleted() and len(history) == 1
    assert unlearned.params.keys() == own.params.keys()
