"""Objectives on hidden states."""

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.data.packing import FORGET, RETAIN
from pmc_jax.training.forward import Terms
from pmc_jax.training.objectives.means import mean_of_examples, means_of_examples
from pmc_jax.training.statistics import Hyper

DIRECTION = 5  # first word of the numpy seed


def direction(seed: int, width: int) -> np.ndarray:
    """RMU's direction: uniform in [0, 1)^D, divided by its norm, float32 [D]. The same for a seed on every machine."""
    drawn_D = np.random.default_rng([DIRECTION, seed]).random(width)
    return (drawn_D / np.linalg.norm(drawn_D)).astype(np.float32)


def rmu(terms: Terms, hyper: Hyper) -> jax.Array:
    """forget_weight * distance(h, steering * u)(forget) + retain_weight * distance(h, h_start)(retain).

    h: the output of layer `layer` at each label's own token. distance: the mean of the squared difference over the
    width, then over an example's labels, then over examples. u: `direction` of the run's seed.

    Representation misdirection (Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
    ICML 2024), with all parameters trained.
    """
    hidden_SAD = terms.hidden_SAD.astype(jnp.float32)
    target_D = hyper["steering"] * direction(int(hyper["seed"]), hidden_SAD.shape[-1])

    def distance(target, group: int) -> jax.Array:
        distance_SA = jnp.mean(jnp.square(hidden_SAD - target), axis=-1)
        return mean_of_examples(terms, means_of_examples(terms, distance_SA), group)

    start_SAD = terms.start_hidden_SAD.astype(jnp.float32)
    return hyper["forget_weight"] * distance(target_D[None, None], FORGET) + hyper["retain_weight"] * distance(
        start_SAD, RETAIN
    )
