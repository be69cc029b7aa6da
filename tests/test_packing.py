"""Packed rows say the same as rows one by one: losses, parameters after an update, labels."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import pmc_jax
from pmc_jax.data.packing import (
    FORGET,
    GROUPS,
    NO_LABEL,
    NO_ROW,
    RETAIN,
    Batch,
    Packing,
    Row,
    common_prefix,
    pack,
    place,
    plan_packing,
)
from pmc_jax.errors import UserError
from pmc_jax.training import forward, optimizer, update
from pmc_jax.training.batching import even_batches
from pmc_jax.training.objectives import mean_nll

RECIPE = update.Recipe(
    learning_rate=1e-2,
    weight_decay=0.01,
    warmup_steps=0,
    total_steps=10,
    grad_clip=1.0,
    compute_dtype="",
    hyper=(("retain_weight", 1.5),),
)


def make_rows(seed: int, count: int = 9, shared: int = 5, vocab: int = 500) -> list[Row]:
    """Rows of both groups that share `shared` prompt tokens, with answers of 1 to 20 tokens."""
    rng = np.random.default_rng(seed)
    prefix = rng.integers(5, vocab, shared).tolist()
    rows = []
    for i in range(count):
        prompt, answer = (
            prefix + rng.integers(5, vocab, rng.integers(2, 12)).tolist(),
            rng.integers(5, vocab, rng.integers(1, 20)).tolist(),
        )
        rows.append(Row(prompt + answer, len(prompt), GROUPS[i % 3], reference=float(i), weight=i / 8))
    return rows


def one_by_one(checkpoint, rows: list[Row]) -> np.ndarray:
    """[forget, retain, refusal] means of -log p over answer tokens, one row a line, unpacked, no shared prefix."""
    tokens, mask = np.zeros((len(rows), 40), int), np.zeros((len(rows), 40), bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)], mask[i, : len(row.tokens)] = row.tokens, True
    log_probs = np.asarray(jax.nn.log_softmax(pmc_jax.logits(checkpoint, tokens, mask)))
    sums, counts = np.zeros(len(GROUPS)), np.zeros(len(GROUPS))
    for i, row in enumerate(rows):
        label_T = np.arange(row.start, len(row.tokens))
        group = GROUPS.index(row.group)
        sums[group] -= log_probs[i, label_T - 1, tokens[i, label_T]].sum()
        counts[group] += len(label_T)
    return sums / counts


def packed_groups(model, params, batch: Batch) -> np.ndarray:
    """[forget, retain, refusal] of a packed batch, summed over its micro-batches."""

    @jax.jit
    def groups(params, batch, m):
        terms = forward.compute_terms(model, params, batch, m)
        return jnp.stack([mean_nll(terms, group) for group in GROUPS])

    batch = jax.tree.map(jnp.asarray, batch)
    return np.sum([groups(params, batch, m) for m in range(int(batch.used))], axis=0)


@pytest.mark.parametrize("which", ["tiny_checkpoint", "tiny_phi"])
@pytest.mark.parametrize(
    ("length", "rows", "labels", "shards", "cut"),
    [
        (64, 8, 160, 1, False),
        (48, 4, 96, 2, False),
        (96, 1, 64, 1, True),
        (18, 3, 40, 1, True),
        (16, 13, 160, 1, False),
    ],
)
def test_losses_equal_those_of_single_rows(which, request, length, rows, labels, shards, cut):
    checkpoint, examples = request.getfixturevalue(which), make_rows(length)
    batch = pack(examples, Packing(common_prefix(examples), length, rows, labels, 9), shards)
    assert (batch.used > 1) == cut
    assert batch.tokens_MRT.shape[1:] == (shards * rows, length) and batch.index_MSA.shape[1:] == (shards, labels)
    wanted = one_by_one(checkpoint, examples)
    assert packed_groups(checkpoint.model, checkpoint.params, batch) == pytest.approx(wanted, rel=1e-5)


def test_chunked_losses_are_the_same(tiny_checkpoint):
    examples = make_rows(1)
    batch = pack(examples, Packing(5, 64, 8, 160, 9))
    whole = packed_groups(tiny_checkpoint.model, tiny_checkpoint.params, batch)
    chunked = tiny_checkpoint.model.clone(logits_at_once=7 * tiny_checkpoint.config.vocab_size)
    assert packed_groups(chunked, tiny_checkpoint.params, batch) == pytest.approx(whole, rel=1e-6)


def after_update(checkpoint, batch, model=None):
    state = update.create_state(checkpoint.params, RECIPE)
    state, metrics = update.update(
        model or checkpoint.model, RECIPE, state, update.put_batch(batch, update.meshes.mesh_of(state.params))
    )
    return state.params, {k: float(v) for k, v in metrics.items()}


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        # Adam's first step is about the sign of the gradient: rounding shows where a gradient is almost zero, and only
        # there.
        np.testing.assert_allclose(a, b, atol=1e-3)
        assert np.mean(np.abs(np.asarray(a) - np.asarray(b))) < 1e-6


def test_micro_batches_remat_and_shape_change_nothing(tiny_checkpoint):
    """An update of the whole batch, of it in 2 and in 4 parts, overflowing its shape, and with recomputation: the same
    parameters.
    """
    examples = make_rows(2, count=12)
    roomy = Packing(common_prefix(examples), 64, 12, 320, 12)
    params, metrics = after_update(tiny_checkpoint, pack(examples, roomy))
    assert any(
        float(jnp.max(jnp.abs(a - b))) > 1e-3
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(tiny_checkpoint.params))
    )
    fewer = dict(rows=3), dict(rows=1, micro_batches=3), dict(length=16, rows=5, labels=64), dict(examples=5)
    for shape in (roomy._replace(**changes) for changes in fewer):
        batch = pack(examples, shape)
        assert batch.used > 1
        after, others = after_update(tiny_checkpoint, batch)
        assert_same(after, params)
        assert others == pytest.approx(metrics, rel=1e-5)
    after, others = after_update(tiny_checkpoint, pack(examples, roomy), tiny_checkpoint.model.clone(remat=True))
    assert_same(after, params)
    assert others == pytest.approx(metrics, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["forget_loss"] + 1.5 * metrics["retain_loss"])


def test_an_update_leaves_the_given_parameters_alone(tiny_checkpoint):
    before = jax.tree.map(np.array, tiny_checkpoint.params)
    after_update(tiny_checkpoint, pack(make_rows(3), Packing(0, 64, 8, 160, 9)))
    assert_same(before, tiny_checkpoint.params)


@hypothesis_settings(max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(15, 80), st.integers(0, 15))
def test_examples_stand_beside_each_other_each_in_two_neighbouring_blocks(lengths, block, start):
    begins, end = place(lengths, block, start)
    spans = sorted((begin, begin + n) for begin, n in zip(begins, lengths))
    assert spans[0][0] >= start and spans[-1][1] == end
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert all((last - 1) // block - first // block <= 1 for first, last in spans)
    if max(lengths) <= block:
        assert end == start + sum(lengths)  # no gap at all


@hypothesis_settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 9))
def test_even_batches_hold_every_example_once_and_differ_little(seed, count, size):
    rows = make_rows(seed, count=2 * count)
    batches = even_batches(list(zip(rows[::2], rows[1::2])), size)
    assert len(batches) == -(-count // size) and all(len(b) <= 2 * size for b in batches)
    assert sorted(map(id, rows)) == sorted(id(r) for b in batches for r in b)
    assert all(rows.index(b[i]) + 1 == rows.index(b[i + 1]) for b in batches for i in range(0, len(b), 2))
    if count % size == 0:
        tokens = [sum(len(r.tokens) for r in b) for b in batches]
        assert max(tokens) - min(tokens) <= 2 * max(len(r.tokens) for r in rows)


@hypothesis_settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3))
def test_every_label_is_there_once(seed, shards, micro_batches):
    rows = make_rows(seed, count=7)
    batch = pack(rows, Packing(common_prefix(rows), 24, 3, 48, 4, micro_batches), shards)
    labels = batch.labels_MSA[batch.group_MSA != NO_LABEL]
    assert sorted(labels.tolist()) == sorted(t for r in rows for t in r.tokens[r.start :])
    counts = [sum(len(r.tokens) - r.start for r in rows if r.group == g) for g in GROUPS]
    assert batch.label_counts_G.tolist() == counts and batch.example_counts_G.tolist() == [3, 2, 2]
    slots = 1 if micro_batches == batch.used == 1 else max(2 * micro_batches, batch.used)
    assert len(batch.tokens_MRT) == slots and not batch.group_MSA[batch.used :].any()


@hypothesis_settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 5))
def test_every_label_knows_its_example(seed, shards, examples):
    rows = make_rows(seed, count=7)
    batch = pack(rows, Packing(common_prefix(rows), 24, 3, 48, examples), shards)
    labels: dict[int, list[int]] = {}
    for m, s, a in np.argwhere(batch.group_MSA != NO_LABEL):
        e = batch.example_MSA[m, s, a]
        row = rows[batch.row_MSE[m, s, e]]
        of_example = (batch.group_MSE[m, s, e], batch.reference_MSE[m, s, e], batch.weight_MSE[m, s, e])
        assert of_example == (row.group, row.reference, row.weight)
        assert batch.group_MSA[m, s, a] == row.group
        labels.setdefault(int(batch.row_MSE[m, s, e]), []).append(int(batch.labels_MSA[m, s, a]))
    assert labels == {i: row.tokens[row.start :] for i, row in enumerate(rows)}
    assert batch.row_MSE.shape[1:] == (shards, examples) and not batch.group_MSE[batch.row_MSE == NO_ROW].any()


def test_an_example_that_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="30 tokens"):
        pack([Row([7] * 30, 3, FORGET)], Packing(0, 14, 2, 64, 1))


def test_the_plan_holds_typical_batches_in_one_micro_batch():
    plan = plan_packing([make_rows(number) for number in range(40)], longest=40, prefix=5, shards=1, micro_batches=1)
    assert plan.longest >= 40 and plan.length < 40 and plan.examples == 9
    assert np.mean([pack(make_rows(seed), plan).used == 1 for seed in range(100, 140)]) > 0.7


def test_common_prefix_leaves_each_prompt_a_token():
    assert common_prefix([Row([1, 2, 3, 9, 9], 3, FORGET), Row([1, 2, 4, 9], 3, RETAIN)]) == 2
    assert common_prefix([Row([1, 2, 3, 9], 3, FORGET)] * 2) == 2
    assert common_prefix([Row([5, 9], 1, FORGET), Row([1, 2, 9], 2, FORGET)]) == 0


def test_weight_decay_spares_biases_and_norms(tiny_phi):
    flags = jax.tree_util.tree_leaves_with_path(optimizer.decays(tiny_phi.params))
    for path, decayed in flags:
        name = path[-1].key
        assert decayed == (not (name == "scale" or "bias" in name)), path
    assert {decayed for _, decayed in flags} == {True, False}


def test_the_schedule_warms_up_from_zero_and_ends_at_zero():
    rate = optimizer.schedule(RECIPE._replace(warmup_steps=4, total_steps=12))
    wanted = [0, 0.25, 0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]
    assert [float(rate(i)) for i in range(13)] == pytest.approx([w * 1e-2 for w in wanted])


def test_dynamic_rope_refuses_rows_beyond_what_it_was_trained_for(tiny_checkpoint, small, splits):
    """Beyond max_position_embeddings its angles depend on a row's length, and a packed row is longer than its
    examples.
    """
    kind = tiny_checkpoint.config.layers[0]
    kind = dataclasses.replace(kind, rope=dataclasses.replace(kind.rope, type="dynamic", factor=2.0, max_positions=100))
    checkpoint = tiny_checkpoint.replace(config=dataclasses.replace(tiny_checkpoint.config, layers=(kind,) * 2))
    with pytest.raises(UserError, match="max_length=200.*max_position_embeddings=100"):
        pmc_jax.unlearn(checkpoint, splits["forget20"], splits["retain80"], small())


def state_bytes(state):
    return sum(x.nbytes for x in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adafactor"}, {"moment_dtype": "bfloat16"}], ids=lambda c: next(iter(c))
)
def test_optimisers_with_less_state_learn_too(tiny_checkpoint, changes):
    batch = pack(make_rows(3), Packing(0, 64, 8, 160, 9))
    recipe = RECIPE._replace(learning_rate=3e-3, **changes)
    state = update.create_state(tiny_checkpoint.params, recipe)
    losses_seen = []
    for _ in range(6):
        state, metrics = update.update(
            tiny_checkpoint.model, recipe, state, update.put_batch(batch, update.meshes.mesh_of(state.params))
        )
        losses_seen.append(float(metrics["loss"]))
    assert losses_seen[-1] < 0.8 * losses_seen[0]
    assert state_bytes(state) < 0.8 * state_bytes(update.create_state(tiny_checkpoint.params, RECIPE))


def test_adafactor_keeps_next_to_nothing_of_a_large_matrix():
    mesh = update.meshes.make_mesh()
    params = {"kernel": update.meshes.put(np.ones((256, 512), np.float32), update.meshes.replicated_sharding(mesh))}
    kept = {
        name: state_bytes(update.create_state(params, RECIPE._replace(optimizer=name)))
        for name in ("adamw", "adafactor")
    }
    assert kept["adamw"] > 8 * 256 * 512 and kept["adafactor"] < 5000
