"""Shares of means over the labels or the examples of a group in the whole global batch."""

import jax
import jax.numpy as jnp

from pmc_jax.data.packing import FORGET, GROUPS, RETAIN
from pmc_jax.training.forward import Terms, sum_by_example
from pmc_jax.training.statistics import Hyper


def mean_of_labels(terms: Terms, values_SA: jax.Array, group: int) -> jax.Array:
    """This micro-batch's share of the mean of `values_SA` over a group's labels; 0 where there are none."""
    sum_of_group = jnp.sum(jnp.where(terms.group_SA == group, values_SA, 0.0))
    return sum_of_group / terms.label_counts_G[GROUPS.index(group)]


def mean_of_examples(terms: Terms, values_SE: jax.Array, group: int) -> jax.Array:
    """This micro-batch's share of the mean of `values_SE` over a group's examples; 0 where there are none."""
    sum_of_group = jnp.sum(jnp.where(terms.group_SE == group, values_SE, 0.0))
    return sum_of_group / terms.example_counts_G[GROUPS.index(group)]


def mean_without_first(terms: Terms, values_SA: jax.Array) -> jax.Array:
    """This micro-batch's share of the mean of `values_SA` over the forget labels that are not their example's first."""
    before_SA = jnp.pad(terms.example_SA, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]  # labels of one stand together
    counts_SA = (terms.group_SA == FORGET) & (terms.example_SA == before_SA)
    group = GROUPS.index(FORGET)
    count = jnp.maximum(1.0, terms.label_counts_G[group] - terms.example_counts_G[group])
    return jnp.sum(jnp.where(counts_SA, values_SA, 0.0)) / count


def sums_of_examples(terms: Terms, values_SA: jax.Array) -> jax.Array:
    """Each example's sum of its labels' values, [S, E]; over `terms.labels_SE` it is each example's mean."""
    return sum_by_example(values_SA, terms.group_SA, terms.example_SA, terms.group_SE.shape[1])


def means_of_examples(terms: Terms, values_SA: jax.Array) -> jax.Array:
    """Each example's mean of its labels' values, [S, E]; 0 where there is no example."""
    return sums_of_examples(terms, values_SA) / jnp.maximum(terms.labels_SE, 1.0)


def of_pair(terms: Terms, values_SE: jax.Array) -> jax.Array:
    """The value of the example that each one is paired with, [S, E]."""
    return jnp.take_along_axis(values_SE, terms.pair_SE, axis=1)


def mean_nll(terms: Terms, group: int) -> jax.Array:
    """This micro-batch's share of a group's CE."""
    return mean_of_labels(terms, -terms.log_probs_SA, group)


def retain_term(terms: Terms, hyper: Hyper) -> jax.Array:
    """retain_weight * CE(retain) + kl_weight * KL(p_start || p)(retain), the mean over the retain labels."""
    loss = hyper["retain_weight"] * mean_nll(terms, RETAIN)
    if hyper["kl_weight"]:
        loss += hyper["kl_weight"] * mean_of_labels(terms, terms.statistics["kl_from_start"], RETAIN)
    return loss
