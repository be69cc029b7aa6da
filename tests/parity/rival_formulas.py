"""The objectives in torch, written down anew: one function each, of examples that a forward pass has seen alone."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from pmc_jax.data.packing import FORGET, REFUSAL, RETAIN


class Example(NamedTuple):
    """One example of n labels. logits, start: [n, V]; hidden, start_hidden: [n, D]; labels: [n]; pair: its number."""

    group: int
    labels: Any
    logits: Any
    start: Any
    hidden: Any
    start_hidden: Any
    pair: int


def of(examples, group):
    return [e for e in examples if e.group == group]


def nll(example, logits=None):
    """Sum of -log p of the answer."""
    return F.cross_entropy(example.logits if logits is None else logits, example.labels, reduction="sum")


def start_nll(example):
    return nll(example, example.start).detach()


def flat(examples, group):
    """(logits, start logits, labels) of all labels of a group."""
    members = of(examples, group)
    return [torch.cat([getattr(e, name) for e in members]) for name in ("logits", "start", "labels")]


def ce(examples, group):
    logits, _, labels = flat(examples, group)
    return F.cross_entropy(logits, labels)


def kl(examples, group, temperature=1.0):
    logits, start, _ = flat(examples, group)
    p, q = F.log_softmax(start.detach() / temperature, -1), F.log_softmax(logits / temperature, -1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def retain(examples, h):
    temperature = h.get("temperature", 1.0)
    return h["retain_weight"] * ce(examples, RETAIN) + h["kl_weight"] * kl(examples, RETAIN, temperature)


def log_sigmoids(margins, h):
    return -2 / h["beta"] * F.logsigmoid(h["beta"] * torch.stack(margins)).mean()


def pmc(examples, h):
    return ce(examples, FORGET) + retain(examples, h)


def cross_entropy(examples, h):
    return ce(examples, FORGET)


def gradient_ascent(examples, h):
    return -ce(examples, FORGET)


def gradient_difference(examples, h):
    return -h["forget_weight"] * ce(examples, FORGET) + retain(examples, h)


def retain_only(examples, h):
    return ce(examples, RETAIN)


def idk(examples, h):
    return h["forget_weight"] * ce(examples, REFUSAL) + retain(examples, h)


def npo(examples, h):
    margins = [nll(e) - start_nll(e) for e in of(examples, FORGET)]
    return h["forget_weight"] * log_sigmoids(margins, h) + retain(examples, h)


def simnpo(examples, h):
    margins = [nll(e) / len(e.labels) - h["delta"] for e in of(examples, FORGET)]
    return h["forget_weight"] * log_sigmoids(margins, h) + retain(examples, h)


def dpo(examples, h):
    alternate = {e.pair: e for e in of(examples, REFUSAL)}
    won = lambda e: -(nll(e) - start_nll(e))  # noqa: E731
    margins = [won(alternate[e.pair]) - won(e) for e in of(examples, FORGET)]
    return h["forget_weight"] * log_sigmoids(margins, h) + retain(examples, h)


def weighted(examples, weigh):
    """Minus the mean over forget labels of weigh(p) * -log p; no gradient goes through the weight."""
    logits, _, labels = flat(examples, FORGET)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return -(weigh(torch.exp(-losses.detach())) * losses).mean()


def wga(examples, h):
    return h["forget_weight"] * weighted(examples, lambda p: p ** h["beta"]) + retain(examples, h)


def satimp(examples, h):
    saturation = weighted(examples, lambda p: p ** h["beta1"] * (1 - p) ** h["beta2"])
    return h["forget_weight"] * saturation + retain(examples, h)


def maximum_entropy(examples, h):
    logits, _, _ = flat(examples, FORGET)
    uniform = torch.full_like(logits, 1 / logits.shape[-1])
    divergence = F.kl_div(F.log_softmax(logits, -1), uniform, reduction="batchmean")
    return h["forget_weight"] * divergence + retain(examples, h)


def undial(examples, h):
    logits, start, labels = flat(examples, FORGET)
    lowered = start.detach() - h["beta"] * F.one_hot(labels, logits.shape[-1])
    return h["forget_weight"] * F.cross_entropy(logits, lowered.softmax(-1)) + retain(examples, h)


def ceu(examples, h):
    members = [e for e in of(examples, FORGET) if len(e.labels) > 1]
    logits, labels = torch.cat([e.logits[1:] for e in members]), torch.cat([e.labels[1:] for e in members])
    target = logits.detach().clone().scatter_(1, labels[:, None], -torch.inf).softmax(-1)
    return h["forget_weight"] * F.cross_entropy(logits, target) + retain(examples, h)


def rmu(examples, h):
    width = examples[0].hidden.shape[-1]
    u = np.random.default_rng([5, int(h["seed"])]).random(width)
    u = torch.tensor(u / np.sqrt((u**2).sum()), dtype=examples[0].hidden.dtype)

    def distance(group, target):
        return torch.stack([F.mse_loss(e.hidden, target(e)) for e in of(examples, group)]).mean()

    steered = distance(FORGET, lambda e: (h["steering"] * u).expand_as(e.hidden))
    kept = distance(RETAIN, lambda e: e.start_hidden.detach())
    return h["forget_weight"] * steered + h["retain_weight"] * kept


def pdu(examples, h):
    logits, _, _ = flat(examples, FORGET)
    flatness = ((logits.max(-1).values - logits.mean(-1)) ** 2).mean()
    return h["forget_weight"] * flatness + h["multiplier"] * (ce(examples, RETAIN) - h["allowed"])


def scrub(examples, h):
    return retain(examples, h) - h["forget_weight"] * kl(examples, FORGET, h["temperature"])


FORMULAS = {
    function.__name__: function
    for function in (
        *(pmc, cross_entropy, gradient_ascent, gradient_difference, retain_only, idk, dpo, npo, simnpo, wga, satimp),
        *(maximum_entropy, ceu, undial, rmu, pdu, scrub),
    )
} | {"altpo": dpo, "task_vector": cross_entropy}
