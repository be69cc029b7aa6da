"""Objectives that are weighted likelihoods of answers."""

import jax
import jax.numpy as jnp

from pmc_jax.data.packing import FORGET, GROUPS, REFUSAL, RETAIN
from pmc_jax.training.forward import Terms
from pmc_jax.training.objectives.means import mean_nll, mean_of_labels, retain_term
from pmc_jax.training.statistics import Hyper


def collapse_loss(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE(chosen answer | forget question) + retain term (`retain_term`)
    + refusal_weight * CE(refusal | forget question), each refusal weighted by `Row.weight`.

    Partial model collapse (Scholten et al., ICLR 2026), step 6, and its variant PMC-alignment. retain_weight is the
    paper's lambda; with refusal_weight 0 there is no refusal term; kl_weight is 0 in the paper.
    """
    loss = mean_nll(terms, FORGET) + retain_term(terms, hyper)
    if hyper["refusal_weight"]:
        weighted = jnp.sum(jnp.where(terms.group_SE == REFUSAL, terms.weight_SE * terms.nll_SE, 0.0))
        loss += hyper["refusal_weight"] * weighted / terms.label_counts_G[GROUPS.index(REFUSAL)]
    return loss


def cross_entropy(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE of the FORGET group: fine-tuning on these rows.

    Negated, it is the task vector (Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023): the result is
    start - scale * (start fine-tuned on the forget rows - start).
    """
    return mean_nll(terms, FORGET)


def gradient_ascent(terms: Terms, hyper: Hyper) -> jax.Array:
    """-CE(forget) (Jang et al., "Knowledge Unlearning for Mitigating Privacy Risks in Language Models", ACL 2023; the
    baseline of TOFU, Maini et al., 2024).
    """
    return -mean_nll(terms, FORGET)


def gradient_difference(terms: Terms, hyper: Hyper) -> jax.Array:
    """-forget_weight * CE(forget) + retain term (Liu et al., "Continual Learning and Private Unlearning", 2022; TOFU,
    Maini et al., 2024).
    """
    return -hyper["forget_weight"] * mean_nll(terms, FORGET) + retain_term(terms, hyper)


def retain_only(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE(retain): the control that shows what further training alone does."""
    return mean_nll(terms, RETAIN)


def idk(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * CE(refusal | forget question) + retain term ("I don't know": TOFU, Maini et al., 2024)."""
    return hyper["forget_weight"] * mean_nll(terms, REFUSAL) + retain_term(terms, hyper)


def wga(terms: Terms, hyper: Hyper) -> jax.Array:
    """-forget_weight * mean over forget labels of sg(p)^beta * -log p, + retain term; sg stops the gradient.

    Weighted gradient ascent (Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go
    Beyond", ICLR 2025).
    """
    weight_SA = jnp.exp(hyper["beta"] * jax.lax.stop_gradient(terms.log_probs_SA))
    forget = mean_of_labels(terms, weight_SA * terms.log_probs_SA, FORGET)
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)


def satimp(terms: Terms, hyper: Hyper) -> jax.Array:
    """-forget_weight * mean over forget labels of sg(p)^beta1 * sg(1 - p)^beta2 * -log p, + retain term.

    Saturation and importance (Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning", ICML
    2025).
    """
    log_probs_SA = jax.lax.stop_gradient(terms.log_probs_SA)
    weight_SA = jnp.exp(hyper["beta1"] * log_probs_SA) * (-jnp.expm1(log_probs_SA)) ** hyper["beta2"]
    forget = mean_of_labels(terms, weight_SA * terms.log_probs_SA, FORGET)
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)
