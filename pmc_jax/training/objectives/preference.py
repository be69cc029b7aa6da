"""Objectives that come from preference optimization: whole answers against the start model, or against each other."""

import jax
import jax.numpy as jnp

from pmc_jax.data.packing import FORGET
from pmc_jax.training.forward import Terms
from pmc_jax.training.objectives.means import mean_of_examples, of_pair, retain_term
from pmc_jax.training.statistics import Hyper


def preference(terms: Terms, hyper: Hyper, margin_SE: jax.Array) -> jax.Array:
    """forget_weight * -(2 / beta) * mean over forget examples of log sigmoid(beta * margin), + retain term."""
    forget = -2 / hyper["beta"] * mean_of_examples(terms, jax.nn.log_sigmoid(hyper["beta"] * margin_SE), FORGET)
    return hyper["forget_weight"] * forget + retain_term(terms, hyper)


def npo(terms: Terms, hyper: Hyper) -> jax.Array:
    """`preference` of the margin NLL - NLL_start.

    Negative preference optimization (Zhang et al., "Negative Preference Optimization: From Catastrophic Collapse to
    Effective Unlearning", COLM 2024): NLL is summed over the answer, not divided by its length.
    """
    return preference(terms, hyper, terms.nll_SE - terms.reference_SE)


def simnpo(terms: Terms, hyper: Hyper) -> jax.Array:
    """`preference` of the margin NLL / labels - delta.

    SimNPO (Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning", 2024).
    There is no start model in it.
    """
    return preference(terms, hyper, terms.nll_SE / jnp.maximum(terms.labels_SE, 1.0) - hyper["delta"])


def dpo(terms: Terms, hyper: Hyper) -> jax.Array:
    """`preference` of the margin (NLL - NLL_start) - (NLL_alternate - NLL_alternate,start).

    Direct preference optimization (Rafailov et al., NeurIPS 2023) of an alternate over the true answer. With a refusal
    as the alternate it is the baseline of TOFU (Maini et al., 2024); with answers that the model made up, AltPO
    (Mekala et al., "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models",
    COLING 2025).
    """
    change_SE = terms.nll_SE - terms.reference_SE
    return preference(terms, hyper, change_SE - of_pair(terms, change_SE))
