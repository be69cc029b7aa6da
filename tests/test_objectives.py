"""Objectives: value and gradient of packed rows against plain formulas on the same rows, one a line."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_packing import RECIPE, make_rows

from pmc_jax.data.packing import FORGET, NO_LABEL, REFUSAL, RETAIN, Packing, common_prefix, pack
from pmc_jax.errors import UserError
from pmc_jax.training import forward, label_values, objectives, update
from pmc_jax.training.objectives import OBJECTIVES, Objective
from pmc_jax.training.objectives.objective import wanted

LAYER, STEERED = 0, 0.3


def toy_loss(terms, hyper):
    """Hidden states are steered to a constant, flat logits are rewarded: what the table's objectives do not use."""
    distance_SA = jnp.mean(jnp.square(terms.hidden_SAD - STEERED), axis=-1)
    means_SE = objectives.sums_of_examples(terms, distance_SA) / jnp.maximum(terms.labels_SE, 1.0)
    spread_SA = jnp.square(terms.statistics["max"] - terms.statistics["mean"])
    steering = objectives.mean_of_examples(terms, means_SE, FORGET)
    flatness = objectives.mean_of_labels(terms, spread_SA - terms.statistics["entropy"], RETAIN)
    return hyper["steer"] * steering + flatness


TOY = Objective(toy_loss, hyper=(("steer", 2.0),), statistics=("max", "mean", "entropy"), hidden_layer=LAYER)
PLAIN = ("pmc", "cross_entropy", "gradient_ascent", "gradient_difference", "retain_only", "npo")
ALL = {name: OBJECTIVES[name] for name in PLAIN} | {"toy": TOY}


def plain_losses(model, params, rows):
    """{objective: its loss} from one row a line, written down anew from the formulas."""
    width = max(len(r.tokens) for r in rows)
    tokens_NT = np.array([r.tokens + [0] * (width - len(r.tokens)) for r in rows])
    is_label_NT = np.array([[r.start <= t < len(r.tokens) for t in range(width)] for r in rows])
    positions_NT = np.broadcast_to(np.arange(width), tokens_NT.shape)
    causal_NTT = np.broadcast_to(np.tril(np.ones((width, width), bool)), (len(rows), width, width))
    hidden_NTD, _, layer_NTD = model.apply({"params": params}, tokens_NT, positions_NT, causal_NTT, hidden_layer=LAYER)
    logits_NTV = model.apply({"params": params}, hidden_NTD, method="unembed")[:, :-1]
    p_NTV = jax.nn.softmax(logits_NTV)
    label_NT = is_label_NT[:, 1:]
    nll_NT = -jnp.log(jnp.take_along_axis(p_NTV, tokens_NT[:, 1:, None], axis=2)[..., 0])
    forget_N, retain_N = (np.array([r.group == g for r in rows]) for g in (FORGET, RETAIN))

    def mean(values_NT, of_N):
        return jnp.sum(values_NT * label_NT * of_N[:, None]) / jnp.sum(label_NT * of_N[:, None])

    forget, retain = mean(nll_NT, forget_N), mean(nll_NT, retain_N)
    sums_N = jnp.sum(nll_NT * label_NT, axis=1)
    ratios_N = jnp.log(1 / (1 + jnp.exp(-0.1 * (sums_N - np.array([r.reference for r in rows])))))
    distance_NT = jnp.mean((layer_NTD[:, 1:] - STEERED) ** 2, axis=-1)
    distance_N = jnp.sum(distance_NT * label_NT, axis=1) / jnp.sum(label_NT, axis=1)
    flat_NT = (jnp.max(logits_NTV, axis=-1) - jnp.mean(logits_NTV, axis=-1)) ** 2 + jnp.sum(
        p_NTV * jnp.log(p_NTV), axis=-1
    )
    return {
        "pmc": forget + 1.25 * retain,
        "cross_entropy": forget,
        "gradient_ascent": -forget,
        "gradient_difference": -forget + retain,
        "retain_only": retain,
        "npo": -2 / 0.1 * jnp.sum(ratios_N * forget_N) / forget_N.sum() + retain,
        "toy": 2.0 * jnp.sum(distance_N * forget_N) / forget_N.sum() + mean(flat_NT, retain_N),
    }


def packed_losses(model, params, batch):
    """{objective: its loss}, the sum of the shares of the batch's micro-batches."""
    shares = []
    for index in range(int(batch.used)):
        terms = forward.compute_terms(model, params, batch, index, wanted(TOY, {}))
        shares.append({name: o.loss(terms, objectives.hyperparameters(o)) for name, o in ALL.items()})
    return jax.tree.map(lambda *values: sum(values), *shares)


def values_and_gradients(losses, params):
    """{objective: loss}, {objective: its gradient}, of a function of the parameters; one program for all."""
    return jax.jit(lambda params: (losses(params), jax.jacrev(losses)(params)))(params)


@pytest.fixture(scope="module")
def rows():
    """Rows of both groups whose references are about as large as their NLL under a fresh model."""
    rng = np.random.default_rng(3)
    return [
        r._replace(reference=float(6.2 * (len(r.tokens) - r.start) + rng.normal(scale=5))) for r in make_rows(4, 10)
    ]


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in PLAIN])
def test_micro_batches_and_shards_change_no_objective(fresh_checkpoint, name):
    """Pairs stay together, counts are those of the global batch, and what is told of the start model is its own."""
    groups = {FORGET: 0, REFUSAL: 0}
    rows = make_rows(4, 12)
    for i, row in enumerate(rows):
        if row.group in groups:
            groups[row.group] += 1
            rows[i] = row._replace(pair=groups[row.group])
    objective = OBJECTIVES[name]
    small = {"layer": 1, "kl_weight": 0.4}
    own = tuple((key, value) for key, value in small.items() if key in dict(objective.hyper))
    hyper = objectives.hyperparameters(objective, own)
    start = jax.tree.map(lambda x: 1.1 * x, fresh_checkpoint.params)

    @jax.jit
    def share(batch, index):
        needs = wanted(objective, hyper, start)
        return objective.loss(
            forward.compute_terms(fresh_checkpoint.model, fresh_checkpoint.params, batch, index, needs), hyper
        )

    values = []
    for shape, shards in ((Packing(5, 64, 8, 160, 12), 1), (Packing(5, 24, 3, 48, 4), 2)):
        batch = pack(rows, shape._replace(prefix=common_prefix(rows)), shards)
        values.append(sum(float(share(jax.tree.map(jnp.asarray, batch), index)) for index in range(int(batch.used))))
    assert batch.used > 1 and values[1] == pytest.approx(values[0], rel=1e-5)


@pytest.fixture(scope="module")
def plain(fresh_checkpoint, rows):
    return values_and_gradients(
        lambda params: plain_losses(fresh_checkpoint.model, params, rows), fresh_checkpoint.params
    )


def distance(one, other) -> float:
    """Norm of the difference of two trees over the norm of the second."""
    norm = lambda tree: np.sqrt(sum(float(np.sum(np.square(x))) for x in jax.tree.leaves(tree)))  # noqa: E731
    return norm(jax.tree.map(jnp.subtract, one, other)) / norm(other)


@pytest.mark.parametrize(
    ("shape", "shards"), [(Packing(5, 64, 8, 160, 10), 1), (Packing(5, 24, 2, 48, 3), 2)], ids=["one", "several"]
)
def test_objectives_of_packed_rows_are_those_of_the_formulas(fresh_checkpoint, rows, plain, shape, shards):
    batch = pack(rows, shape._replace(prefix=common_prefix(rows)), shards)
    assert (batch.used > 1) == (shards > 1)
    batch = batch._replace(**{n: jnp.asarray(x) for n, x in batch._asdict().items() if n != "used"})
    values, gradients = values_and_gradients(
        lambda params: packed_losses(fresh_checkpoint.model, params, batch), fresh_checkpoint.params
    )
    assert values.keys() == ALL.keys()
    for name, value in values.items():
        assert float(value) == pytest.approx(float(plain[0][name]), rel=1e-5, abs=1e-5), name  # a difference may be 0
        assert distance(gradients[name], plain[1][name]) < 1e-4, name


def one_update(checkpoint, rows, **changes):
    """(state, metrics) after the first update."""
    recipe = RECIPE._replace(hyper=(), **changes)
    batch = pack(rows, Packing(common_prefix(rows), 24, 2, 48, 3))
    state = update.create_state(checkpoint.params, recipe)
    mesh = update.meshes.mesh_of(state.params)
    return update.update(checkpoint.model, recipe, state, update.put_batch(batch, mesh))


@pytest.mark.parametrize("name", ["npo", "toy"])
def test_an_update_is_of_the_recipes_objective(fresh_checkpoint, rows, plain, name):
    """Whatever the objective, an update tells both groups' mean losses."""
    state, metrics = one_update(fresh_checkpoint, rows, objective=ALL[name])
    assert float(metrics["loss"]) == pytest.approx(float(plain[0][name]), rel=1e-5)
    assert float(metrics["forget_loss"]) == pytest.approx(float(plain[0]["cross_entropy"]), rel=1e-5)
    assert float(metrics["retain_loss"]) == pytest.approx(float(plain[0]["retain_only"]), rel=1e-5)
    norm = update.global_norm(plain[1][name])
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
    assert distance(state.params, fresh_checkpoint.params) > 1e-3


def test_the_hidden_states_are_the_layers(fresh_checkpoint, rows):
    """Normed, the first layer's output is the final hidden state of a model of that layer alone."""
    model, params = fresh_checkpoint.model, fresh_checkpoint.params
    batch = jax.tree.map(jnp.asarray, pack(rows, Packing(common_prefix(rows), 64, 8, 160, 10)))
    hidden_AD = forward.compute_terms(model, params, batch, 0, forward.Wanted(hidden_layer=0)).hidden_SAD[0]
    short = model.clone(config=dataclasses.replace(model.config, layers=model.config.layers[:1]))
    where_predicted_next = batch._replace(index_MSA=batch.index_MSA + 1)
    final_AD = forward.label_hidden(short, params, where_predicted_next, 0)[0][0]
    scale = np.asarray(params["final_norm"]["scale"])
    mean_square_A1 = jnp.mean(jnp.square(hidden_AD), axis=-1, keepdims=True)
    normed_AD = hidden_AD / jnp.sqrt(mean_square_A1 + model.config.norm_eps) * scale[None]
    label_A = np.asarray(batch.group_MSA[0, 0]) != NO_LABEL
    np.testing.assert_allclose(normed_AD[label_A], final_AD[label_A], rtol=1e-4, atol=1e-5)
    assert forward.compute_terms(model, params, batch, 0).hidden_SAD is None


def test_references_are_the_rows_likelihoods(fresh_checkpoint, rows):
    """Also of rows of two packed lengths, and of one without labels: NPO starts at log(2) per example."""
    model, params = fresh_checkpoint.model, fresh_checkpoint.params
    long = rows[0]._replace(tokens=rows[0].tokens + rows[1].tokens * 8)
    several = [*rows, long, long._replace(start=len(long.tokens))]
    nll_N = label_values.row_nll(model, params, several)

    def plain_nll(row):
        tokens_1T = np.array([row.tokens])
        T = tokens_1T.shape[1]
        hidden_1TD, _ = model.apply(
            {"params": params}, tokens_1T, np.arange(T)[None], np.tril(np.ones((1, T, T), bool))
        )
        log_p_TV = jax.nn.log_softmax(model.apply({"params": params}, hidden_1TD[0], method="unembed"))
        return -sum(float(log_p_TV[t - 1, row.tokens[t]]) for t in range(row.start, T))

    for number in (0, 5, 10):
        assert nll_N[number] == pytest.approx(plain_nll(several[number]), rel=1e-5)
    assert nll_N[-1] == 0
    referenced = label_values.with_references(model, params, rows)
    assert [r.reference for r in referenced] == nll_N[: len(rows)].tolist()
    _, metrics = one_update(fresh_checkpoint, referenced, objective=OBJECTIVES["npo"])
    start = 2 / 0.1 * np.log(2) + float(metrics["retain_loss"])
    assert float(metrics["loss"]) == pytest.approx(start, rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (dataclasses.replace(TOY, hidden_layer=2), "hidden_layer=2; the model has layers 0 to 1"),
        (Objective(lambda terms, hyper: terms.nll_SE), "must be one number"),
    ],
)
def test_objectives_that_cannot_be_trained_are_refused(fresh_checkpoint, rows, objective, words):
    with pytest.raises(UserError, match=words):
        one_update(fresh_checkpoint, rows, objective=objective)


def test_hyperparameters_are_checked():
    changed = objectives.hyperparameters(OBJECTIVES["npo"], (("beta", 0.5),))
    assert changed == {"beta": 0.5, "forget_weight": 1.0, "retain_weight": 1.0, "kl_weight": 0.0}
    with pytest.raises(ValueError, match="no hyperparameter 'lambda'; it has beta, forget_weight, retain_weight"):
        objectives.hyperparameters(OBJECTIVES["npo"], (("lambda", 0.5),))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"answers": "drawn"}, "sampled, given, none"),
        ({"alternates": "given"}, "none, refusals, own"),
        ({"statistics": ("min",)}, "max, mean"),
        ({"moving": ("rate",)}, "'rate' is none of the hyperparameters"),
    ],
)
def test_needs_that_nothing_provides_are_refused(needs, words):
    with pytest.raises(ValueError, match=words):
        Objective(toy_loss, **needs)


MESHES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import json, sys
sys.path.insert(0, "tests")
from test_objectives import OBJECTIVES, RECIPE, TOY, make_rows
from tiny import LLAMA
from pmc_jax.data.packing import Packing, pack
from pmc_jax.distributed import meshes
from pmc_jax.models import find_family, weights
from pmc_jax.training import update
family = find_family(LLAMA)
model = family.module(family.read_config(LLAMA))
for shards in (1, 4):
    mesh, losses = meshes.make_mesh(shards, 1, jax.devices()[:shards]), []
    params = weights.init_params(family, model, mesh, 0, "float32")
    batch = update.put_batch(pack(make_rows(4, 12), Packing(5, 64, 2, 64, 5), shards), mesh)
    for objective, once in ((OBJECTIVES["npo"], False), (TOY, False), (TOY, True)):
        recipe = RECIPE._replace(hyper=(), objective=objective, gather_once=once)
        state = update.create_state(params, recipe)
        layout = update.layout(state)
        after, metrics = update.update(update.on_mesh(model, mesh), recipe, state, batch, shardings=layout)
        change = sum(float(abs(x - y).sum()) for x, y in zip(*map(jax.tree.leaves, (after.params, params))))
        losses += [float(metrics["loss"]), float(metrics["grad_norm"]), change]
    print(json.dumps(losses))
"""


def test_objectives_on_a_mesh_are_those_of_one_device(python):
    done = python(MESHES)
    assert done.returncode == 0, done.stderr[-2000:]
    one, several = (json.loads(line) for line in done.stdout.splitlines())
    assert several == pytest.approx(one, rel=1e-4)
    assert one[3:6] == pytest.approx(one[6:], rel=1e-6)  # weights gathered once
