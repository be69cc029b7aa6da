"""Whether weights can move: a step of less than half a unit in the last place of a weight is rounded away."""

from typing import Any

import jax
import jax.numpy as jnp

from pmc_jax.tracking.progress import say_once

TOO_MANY = 0.5  # share of weights that cannot move, above which a run is warned


@jax.jit
def stuck_share(params: Any, step: jax.Array) -> jax.Array:
    """The share of parameters that a step of this size leaves as they are.

    AdamW moves a weight by about the learning rate an update, whatever its gradient.

    Args:
        params: a tree of float arrays.
        step: float32 scalar, how far each parameter should move.

    Returns:
        float32 scalar in [0, 1].
    """

    def is_stuck(x):
        half_unit = jnp.finfo(x.dtype).eps / 2 * jnp.exp2(jnp.floor(jnp.log2(jnp.abs(x.astype(jnp.float32)))))
        return jnp.mean(half_unit > step) * x.size

    leaves = jax.tree.leaves(params)
    return sum(map(is_stuck, leaves)) / sum(x.size for x in leaves)


def warn_if_stuck(params: Any, learning_rate: float) -> None:
    """Say so where the peak rate is too small for more than half of the parameters, by their dtype."""
    if all(x.dtype == jnp.float32 for x in jax.tree.leaves(params)):
        return
    share = float(stuck_share(params, jnp.float32(learning_rate)))
    if share > TOO_MANY:
        dtype = next(x.dtype for x in jax.tree.leaves(params) if x.dtype != jnp.float32)
        say_once(
            f"train.learning_rate={learning_rate:g} is less than half a unit in the last place of {share:.0%} of the "
            f"{dtype} parameters: they cannot move. Use model.dtype=float32; model.compute_dtype may stay bfloat16"
        )
