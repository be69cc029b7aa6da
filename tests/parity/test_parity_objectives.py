"""Every objective against a formula in torch: on drawn logits, and as a whole update against autograd."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmc_jax.data.packing import FORGET, NO_LABEL, REFUSAL, Packing, Row, common_prefix, pack
from pmc_jax.training.forward import compute_terms
from pmc_jax.training.label_values import with_references
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.objectives.objective import hyperparameters, wanted

pytest.importorskip("torch")

import golden
import torch
from reference import load_ours, load_torch
from rival_formulas import FORMULAS, Example, start_nll
from test_parity_losses import assert_same_gradients, drawn_rows, save

pytestmark = pytest.mark.parity

VOCAB, WIDTH, LAYER = 37, 12, 0
# Nothing is at a value that would hide a term: both kinds of retain term, and no weight of 1.
OTHERS = {"forget_weight": 0.7, "retain_weight": 1.7, "kl_weight": 0.6, "layer": LAYER, "seed": 3, "multiplier": 4.0}
OTHERS |= {"delta": 0.3, "refusal_weight": 0.0, "beta": 0.4, "temperature": 2.5, "beta1": 2.0}


def changes(name: str) -> tuple[tuple[str, float], ...]:
    return tuple((key, value) for key, value in OTHERS.items() if key in dict(OBJECTIVES[name].hyper))


def paired_rows(rows: list[Row]) -> list[Row]:
    """The rows of three groups; the n-th forget row and the n-th refusal are a pair."""
    seen = {FORGET: 0, REFUSAL: 0}
    for row in rows:
        if row.group in seen:
            seen[row.group] += 1
            row = row._replace(pair=seen[row.group])
        yield row


def three_groups(vocab: int, count: int = 12) -> list[Row]:
    rows = list(paired_rows([r._replace(group=1 + i % 3) for i, r in enumerate(drawn_rows(vocab, count))]))
    # An answer of one token: CE-U has nothing to say of it.
    return [r._replace(tokens=r.tokens[: r.start + 1]) if i == 3 else r for i, r in enumerate(rows)]


class Shape(NamedTuple):
    """What `compute_terms` asks of a model's config."""

    vocab_size: int
    num_layers: int


class DrawnLogits(NamedTuple):
    """Stands for a model: its parameters are its logits and hidden states at each position."""

    config: Any = Shape(VOCAB, 1)
    activations: None = None
    logits_at_once: int = 50 * VOCAB

    def apply(self, variables, inputs, *_, method=None, hidden_layer=None, **__):
        params = variables["params"]
        return (
            inputs if method else (params["logits_RTV"], None, *([params["hidden_RTD"]] * (hidden_layer is not None)))
        )


def drawn_params(shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    draw = lambda width: rng.normal(0, 2.5, (*shape, width)).astype(np.float32)  # noqa: E731
    return {"logits_RTV": draw(VOCAB), "hidden_RTD": draw(WIDTH)}


def examples_of(rows: list[Row], batch: Any, now: dict[str, Any], start: dict[str, Any]) -> list[Example]:
    """The examples of a batch of one micro-batch, read out of torch's copy of the drawn arrays."""
    examples = []
    for shard, (labels, index, group, number) in enumerate(
        zip(batch.labels_MSA[0], batch.index_MSA[0], batch.group_MSA[0], batch.example_MSA[0])
    ):
        blocks = len(batch.tokens_MRT[0]) // len(batch.labels_MSA[0])
        for example in range(batch.group_MSE.shape[-1]):
            own = (group != NO_LABEL) & (number == example)
            if not own.any():
                continue
            pick = lambda x, at: x[shard * blocks : (shard + 1) * blocks].flatten(0, 1)[at]  # noqa: E731, B023
            at = torch.tensor(index[own])
            examples.append(
                Example(
                    group=int(group[own][0]),
                    labels=torch.tensor(labels[own], dtype=torch.long),
                    logits=pick(now["logits_RTV"], at),
                    start=pick(start["logits_RTV"], at),
                    hidden=pick(now["hidden_RTD"], at + 1),
                    start_hidden=pick(start["hidden_RTD"], at + 1),
                    pair=rows[batch.row_MSE[0, shard, example]].pair,
                )
            )
    return examples


def test_every_objective_has_a_formula():
    assert FORMULAS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_and_gradients_on_drawn_logits(name, shards):
    """float32 here, float64 in torch; labels in several chunks."""
    rows = three_groups(VOCAB)
    packing = Packing(common_prefix(rows), 48, 6, 120, 12)
    batch = pack(rows, packing, shards)
    assert batch.used == 1
    now, start = (drawn_params(batch.tokens_MRT.shape[1:], seed) for seed in (1, 2))
    double = lambda tree: {k: torch.tensor(x, dtype=torch.float64, requires_grad=True) for k, x in tree.items()}  # noqa: E731
    torch_now, torch_start = double(now), double(start)
    examples = examples_of(rows, batch, torch_now, torch_start)
    assert len(examples) == len(rows)
    references = {tuple(e.labels.tolist()): start_nll(e).item() for e in examples}
    rows = [r._replace(reference=references[tuple(r.tokens[r.start :])]) for r in rows]
    batch = jax.tree.map(jnp.asarray, pack(rows, packing, shards))
    objective, h = OBJECTIVES[name], hyperparameters(OBJECTIVES[name], changes(name))

    def loss(params):
        return objective.loss(compute_terms(DrawnLogits(), params, batch, 0, wanted(objective, h, start)), h)

    value, gradients = jax.jit(jax.value_and_grad(loss))(now)
    expected = FORMULAS[name](examples, h)
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    for key, gradient in gradients.items():
        theirs = torch_now[key].grad
        theirs = np.zeros_like(gradient) if theirs is None else theirs.numpy()
        assert np.linalg.norm(gradient - theirs) <= 1e-5 * np.linalg.norm(theirs), key
    assert all(x.grad is None for x in torch_start.values())


def torch_examples(model, start, rows: list[Row]) -> list[Example]:
    """The examples as two transformers models see them, one a forward pass."""

    def read(model, row):
        hidden = []
        hook = model.model.layers[LAYER].register_forward_hook(lambda _, __, out: hidden.append(out))
        logits = model(torch.tensor([row.tokens])).logits[0, row.start - 1 : -1]
        hook.remove()
        out = hidden[0][0] if isinstance(hidden[0], tuple) else hidden[0]
        return logits, out[0, row.start :]

    examples = []
    for row in rows:
        with torch.no_grad():
            start_logits, start_hidden = read(start, row)
        logits, hidden = read(model, row)
        labels = torch.tensor(row.tokens[row.start :])
        examples.append(Example(row.group, labels, logits, start_logits, hidden, start_hidden, row.pair))
    return examples


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """(folder of a drawn Llama, folder of the start model): at the start itself all log-ratios would be 0."""
    folder, start_folder = tmp_path_factory.mktemp("now"), tmp_path_factory.mktemp("start")
    _, vocab_size = save(folder, "llama", 3)
    save(start_folder, "llama", 3)
    model, rng = load_torch(folder), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn(parameter.shape, generator=rng))
    model.save_pretrained(folder)
    return folder, start_folder, vocab_size


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_whole_update_is_autograds(two_models, name):
    """Every other one in several micro-batches."""
    several = list(OBJECTIVES).index(name) % 2 == 0
    folder, start_folder, vocab_size = two_models
    model, start, of_start = load_torch(folder), load_torch(start_folder), load_ours(start_folder)
    rows = with_references(of_start.model, of_start.params, three_groups(vocab_size))
    h = hyperparameters(OBJECTIVES[name], changes(name))
    loss = FORMULAS[name](torch_examples(model, start, rows), h)
    loss.backward()
    batch = golden.package_batch(rows, *((24, 4, 48) if several else (48, 8, 128)), several=several)
    metrics, gradients = golden.package_gradients(load_ours(folder), batch, changes(name), name, of_start.params)
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)


def test_phi_too(tmp_path):
    """The other family, by the objective that the most is asked for."""
    folder, vocab_size = save(tmp_path, "phi", 1)
    rows, model, ours = three_groups(vocab_size), load_torch(folder), load_ours(folder)
    h = hyperparameters(OBJECTIVES["gradient_difference"], changes("gradient_difference"))
    loss = FORMULAS["gradient_difference"](torch_examples(model, model, rows), h)
    loss.backward()
    batch = golden.package_batch(rows, 48, 8, 128)
    args = changes("gradient_difference"), "gradient_difference", ours.params
    metrics, gradients = golden.package_gradients(ours, batch, *args)
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)
