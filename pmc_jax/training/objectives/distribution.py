"""Objectives on the whole next-token distribution at each label."""

import jax
import jax.numpy as jnp

from pmc_jax.data.packing import FORGET, RETAIN
from pmc_jax.training.forward import Terms
from pmc_jax.training.objectives.means import mean_of_labels, mean_without_first, retain_term
from pmc_jax.training.objectives.objective import Moment
from pmc_jax.training.statistics import Hyper


def maximum_entropy(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * mean over forget labels of KL(uniform || p), + retain term.

    ME+GD (Yuan et al., "A Closer Look at Machine Unlearning for Large Language Models", ICLR 2025).
    """
    forget = mean_of_labels(terms, terms.statistics["kl_from_uniform"], FORGET)
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)


def undial(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * mean over forget labels of CE(softmax(z_start - beta * onehot(label)), p), + retain term.

    UNDIAL (Dong et al., "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language
    Models", NAACL 2025). z_start: the start model's logits.
    """
    forget = mean_of_labels(terms, terms.statistics["lowered_label"], FORGET)
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)


def ceu(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * mean over forget labels, each answer's first left out, of CE(softmax(sg(z) with the label at
    -inf), p), + retain term.

    CE-U (Yang, "CE-U: Cross Entropy Unlearning", 2025). sg stops the gradient.
    """
    forget = mean_without_first(terms, terms.statistics["without_label"])
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)


def pdu(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * mean over forget labels of (max z - mean z)^2 + multiplier * (CE(retain) - allowed).

    Primal-dual unlearning (Entesari et al., "Constrained Entropic Unlearning: A Primal-Dual Framework for Large
    Language Models", 2025). `raise_multiplier` moves the multiplier.
    """
    flatness_SA = jnp.square(terms.statistics["max"] - terms.statistics["mean"])
    excess = mean_of_labels(terms, -terms.log_probs_SA - hyper["allowed"], RETAIN)
    return hyper["forget_weight"] * mean_of_labels(terms, flatness_SA, FORGET) + hyper["multiplier"] * excess


def raise_multiplier(hyper: Hyper, moment: Moment) -> dict[str, jax.Array]:
    """multiplier <- max(0, multiplier + step * (CE(retain) - allowed)), once an update, after `warmup_epochs`."""
    moved = jnp.maximum(0.0, hyper["multiplier"] + hyper["step"] * (moment.retain_loss - hyper["allowed"]))
    return {"multiplier": jnp.where(moment.epoch >= hyper["warmup_epochs"], moved, hyper["multiplier"])}


def scrub(terms: Terms, hyper: Hyper) -> jax.Array:
    """-forget_weight * D(forget), or on the batches of the other pass retain_weight * CE(retain) + kl_weight *
    D(retain); D is the mean over labels of T^2 * KL(p_start || p) at temperature T.

    SCRUB (Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023). retain_weight is its gamma,
    kl_weight its alpha.
    """
    divergence = mean_of_labels(terms, terms.statistics["kl_from_start"], FORGET)
    return retain_term(terms, hyper) - hyper["forget_weight"] * divergence
