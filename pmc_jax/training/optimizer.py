"""The optimizer of a recipe: clipping, scaling, weight decay and the schedule of the learning rate."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pmc_jax.training.recipe import Recipe


def decays(params: Any) -> Any:
    """True for parameters that weight decay applies to: all but biases and norms."""

    def is_weight(path, _):
        name = path[-1].key
        return not (name == "scale" or name.endswith("bias"))

    return jax.tree_util.tree_map_with_path(is_weight, params)


def schedule(recipe: Recipe) -> optax.Schedule:
    """The learning rate by update: linear from 0 over the warm-up, then linear to 0 at the last step.

    The first update of a warm-up has rate 0 (as published).
    """
    rest = max(1, recipe.total_steps - recipe.warmup_steps)
    warm_up = optax.linear_schedule(0.0, recipe.learning_rate, max(1, recipe.warmup_steps))
    decay = optax.linear_schedule(recipe.learning_rate, 0.0, rest)
    return optax.join_schedules([warm_up, decay], [recipe.warmup_steps]) if recipe.warmup_steps else decay


def global_norm(grads: Any) -> jax.Array:
    """`optax.global_norm` in float32, whatever dtype the gradients have.

    In bfloat16 a sum of squares has three digits.
    """
    return optax.global_norm(jax.tree.map(lambda g: g.astype(jnp.float32), grads))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` as one factor, as torch has it.

    Its quotient of each gradient would be written out, and read again twice.
    """

    def clip(grads, _):
        factor = jnp.minimum(1.0, limit / global_norm(grads))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)

    return optax.stateless(clip)


@functools.lru_cache(maxsize=4)
def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW or Adafactor with the recipe's rate and decoupled weight decay.

    AdamW has b1 .9, b2 .999 and eps 1e-8. Adafactor (Shazeer and Stern, 2018) is without first moment and parameter
    scale; it keeps a row and a column of second moments instead of two numbers a parameter.
    """
    clip = clip_by_global_norm(recipe.grad_clip) if recipe.grad_clip else optax.identity()
    if recipe.optimizer == "adamw":
        scale = optax.scale_by_adam(mu_dtype=recipe.moment_dtype or None)
    else:
        scale = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return optax.chain(
        clip,
        scale,
        optax.add_decayed_weights(recipe.weight_decay, decays),
        optax.scale_by_learning_rate(schedule(recipe)),
    )
