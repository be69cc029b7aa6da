"""The objectives as frameworks compute them: padded batches, labels shifted by one, -100 where there is none.

The packed rows of an update, in one micro-batch or in several, have the value and the gradient that one padded batch
has on one device. UNDIAL and PDU are left out: the framework means the one over padding too, and masks the other one
position off, so only the formulas of test_parity_objectives.py hold for them.
"""

from typing import Any, NamedTuple

import golden
import numpy as np
import pytest

from pmc_jax.data.packing import FORGET, REFUSAL, RETAIN, Row
from pmc_jax.training.label_values import with_references
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.objectives.objective import hyperparameters

pytest.importorskip("torch")

import torch
from reference import load_ours, load_torch
from test_parity_losses import assert_same_gradients
from test_parity_objectives import LAYER, changes, three_groups, two_models  # noqa: F401
from torch.nn import functional as F

pytestmark = pytest.mark.parity

IGNORED = -100


class Padded(NamedTuple):
    """What two models say of a batch. logits, start: [B, T, V]; hidden, start_hidden: [B, T, D]; labels: [B, T]."""

    logits: Any
    start: Any
    hidden: Any
    start_hidden: Any
    labels: Any


def padded(model: Any, start: Any, rows: list[Row], group: int) -> Padded:
    """The rows of a group, in the order of their pairs."""
    own = sorted((row for row in rows if row.group == group), key=lambda row: row.pair)
    shape = len(own), max(len(row.tokens) for row in own)
    tokens, mask, labels = torch.zeros(shape, dtype=torch.long), torch.zeros(shape), torch.full(shape, IGNORED)
    for i, row in enumerate(own):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        mask[i, : len(row.tokens)] = 1
        labels[i, row.start : len(row.tokens)] = torch.tensor(row.tokens[row.start :])
    logits, hidden = outputs(model, tokens, mask)
    with torch.no_grad():
        start_logits, start_hidden = outputs(start, tokens, mask)
    return Padded(logits, start_logits, hidden, start_hidden, labels)


def outputs(model: Any, tokens: Any, mask: Any) -> tuple[Any, Any]:
    """(logits, output of a layer). transformers' own hidden states have the last layer's normalised."""
    kept = []
    hook = model.model.layers[LAYER].register_forward_hook(lambda _, __, out: kept.append(out))
    logits = model(tokens, attention_mask=mask).logits
    hook.remove()
    return logits, kept[0][0] if isinstance(kept[0], tuple) else kept[0]


def losses(logits: Any, labels: Any) -> Any:
    """-log p of each next token, 0 where it has no label: [B, T - 1]."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")


def mean_loss(batch: Padded) -> Any:
    """The loss that a causal language model of transformers returns for labels."""
    vocab = batch.logits.shape[-1]
    return F.cross_entropy(batch.logits[:, :-1].reshape(-1, vocab), batch.labels[:, 1:].reshape(-1))


def log_ratio(batch: Padded) -> Any:
    """log p - log p of the start, of each answer: [B]."""
    return (losses(batch.start, batch.labels) - losses(batch.logits, batch.labels)).sum(-1)


def log_sigmoid(margins: Any, beta: float) -> Any:
    return -2 / beta * F.logsigmoid(beta * margins).mean()


def weighted(batch: Padded, weigh: Any) -> Any:
    every = losses(batch.logits, batch.labels)
    return -(weigh((-every).exp().detach()) * every)[batch.labels[:, 1:] != IGNORED].mean()


def simnpo(forget: Padded, h: dict[str, Any]) -> Any:
    length = (forget.labels != IGNORED).sum(-1)
    return log_sigmoid(losses(forget.logits, forget.labels).sum(-1) / length - h["delta"], h["beta"])


def ceu(forget: Padded) -> Any:
    """The true token's logit is -inf in the target; the first label of each answer is passed over."""
    labels = forget.labels[:, 1:].clone()
    labels[torch.arange(len(labels)), (labels != IGNORED).int().argmax(-1)] = IGNORED
    has = labels != IGNORED
    logits = forget.logits[:, :-1][has]
    target = logits.detach().scatter(-1, labels[has][:, None], float("-inf")).softmax(-1)
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def activation_loss(batch: Padded, target: Any) -> Any:
    """Mean over a row's labelled tokens, then over rows."""
    has = batch.labels != IGNORED
    squares = ((batch.hidden - target) ** 2).mean(-1)
    return ((squares * has).sum(-1) / has.sum(-1)).mean()


def rmu(forget: Padded, retain: Padded, h: dict[str, Any]) -> Any:
    direction = np.random.default_rng([5, int(h["seed"])]).random(forget.hidden.shape[-1])
    control = torch.tensor(h["steering"] * direction / np.linalg.norm(direction), dtype=forget.hidden.dtype)
    kept = activation_loss(retain, retain.start_hidden)
    return h["forget_weight"] * activation_loss(forget, control) + h["retain_weight"] * kept


FORGET_TERMS = {
    "gradient_difference": lambda forget, refusal, h: -mean_loss(forget),
    "npo": lambda forget, refusal, h: log_sigmoid(-log_ratio(forget), h["beta"]),
    "simnpo": lambda forget, refusal, h: simnpo(forget, h),
    "dpo": lambda forget, refusal, h: log_sigmoid(log_ratio(refusal) - log_ratio(forget), h["beta"]),
    "idk": lambda forget, refusal, h: mean_loss(refusal),
    "wga": lambda forget, refusal, h: weighted(forget, lambda p: p ** h["beta"]),
    "satimp": lambda forget, refusal, h: weighted(forget, lambda p: p ** h["beta1"] * (1 - p) ** h["beta2"]),
    "ceu": lambda forget, refusal, h: ceu(forget),
}


def framework_loss(name: str, forget: Padded, refusal: Padded, retain: Padded, h: dict[str, Any]) -> Any:
    """The total loss of a method."""
    if name == "gradient_ascent":
        return -mean_loss(forget)
    if name == "rmu":
        return rmu(forget, retain, h)
    return h["forget_weight"] * FORGET_TERMS[name](forget, refusal, h) + h["retain_weight"] * mean_loss(retain)


@pytest.mark.parametrize("several", [False, True], ids=["one micro-batch", "several"])
@pytest.mark.parametrize("name", [*FORGET_TERMS, "gradient_ascent", "rmu"])
def test_packed_rows_are_one_padded_batch(two_models, name, several):  # noqa: F811
    folder, start_folder, vocab_size = two_models
    model, start, of_start = load_torch(folder), load_torch(start_folder), load_ours(start_folder)
    rows = with_references(of_start.model, of_start.params, three_groups(vocab_size))
    asked = dict(changes(name)) | ({"kl_weight": 0.0} if "kl_weight" in dict(OBJECTIVES[name].hyper) else {})
    h = hyperparameters(OBJECTIVES[name], tuple(asked.items()))
    loss = framework_loss(name, *(padded(model, start, rows, group) for group in (FORGET, REFUSAL, RETAIN)), h)
    loss.backward()
    batch = golden.package_batch(rows, *((24, 4, 48) if several else (48, 8, 128)), several=several)
    metrics, gradients = golden.package_gradients(load_ours(folder), batch, tuple(asked.items()), name, of_start.params)
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)
