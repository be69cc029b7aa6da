"""Optimiser and the donated, jitted training step."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pmc_jax import losses, parallel
from pmc_jax.lora import Lora, merge
from pmc_jax.models import Decoder
from pmc_jax.packing import Batch


class TrainState(NamedTuple):
    """What is trained (the parameters, or the adapters of them), optimiser state and the number of updates done."""

    params: Any
    opt_state: Any
    step: jax.Array


class Recipe(NamedTuple):
    """What shapes an update beyond the batch; hashable, so that it is a static argument.

    optimiser: "adamw" or "adafactor". moment_dtype: of AdamW's first moment (empty: the parameters' own).
    compute_dtype: parameters are cast to it for the forward and backward pass (empty: as they are); gradients come back in their own dtype.
    lora: which adapters are trained instead of the parameters.
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    total_steps: int
    grad_clip: float
    retain_weight: float
    compute_dtype: str
    optimiser: str = "adamw"
    moment_dtype: str = ""
    lora: Lora | None = None


def decays(params: Any) -> Any:
    """True for parameters that weight decay applies to: all but biases and norms."""

    def is_weight(path, _):
        name = path[-1].key
        return not (name == "scale" or name.endswith("bias"))

    return jax.tree_util.tree_map_with_path(is_weight, params)


def schedule(recipe: Recipe) -> optax.Schedule:
    """Linear from 0 to the learning rate over the warm-up, then linear to 0 at the last step; the first update has rate 0 (as published)."""
    rest = max(1, recipe.total_steps - recipe.warmup_steps)
    warm_up = optax.linear_schedule(0.0, recipe.learning_rate, max(1, recipe.warmup_steps))
    decay = optax.linear_schedule(recipe.learning_rate, 0.0, rest)
    return optax.join_schedules([warm_up, decay], [recipe.warmup_steps]) if recipe.warmup_steps else decay


@functools.lru_cache(maxsize=4)
def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (b1 .9, b2 .999, eps 1e-8), or Adafactor without its first moment and parameter scale.

    Both have the same learning rate and decoupled weight decay. Adafactor (Shazeer and Stern, 2018) keeps a row and a column of second moments
    instead of two numbers a parameter.
    """
    clip = optax.clip_by_global_norm(recipe.grad_clip) if recipe.grad_clip else optax.identity()
    if recipe.optimiser == "adamw":
        scale = optax.scale_by_adam(mu_dtype=recipe.moment_dtype or None)
    else:
        scale = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return optax.chain(clip, scale, optax.add_decayed_weights(recipe.weight_decay, decays), optax.scale_by_learning_rate(schedule(recipe)))


def create_state(params: Any, recipe: Recipe) -> TrainState:
    """Optimiser state laid out like the parameters; counters, and factors of moments, on every device.

    The parameters are copied: an update donates its state.
    """
    tx = optimiser(recipe)
    everywhere = parallel.replicated(parallel.mesh_of(params))

    def layout(moment, param):
        return param.sharding if moment.shape == param.shape else everywhere

    shardings = optax.tree.map_params(tx, layout, jax.eval_shape(tx.init, params), params, transform_non_params=lambda _: everywhere)
    step = parallel.put(np.int32(0), everywhere)
    return TrainState(jax.tree.map(jnp.copy, params), jax.jit(tx.init, out_shardings=shardings)(params), step)


@functools.partial(jax.jit, static_argnames=("model", "recipe"), donate_argnames=("state",))
def update(model: Decoder, recipe: Recipe, state: TrainState, batch: Batch, base: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimiser step on a batch. Micro-batches are summed: their number changes memory, not the result.

    base: the parameters that adapters are added to, where adapters are trained.
    Returns the new state and scalars: forget_loss, retain_loss (means over labels of the whole batch), loss, grad_norm.
    """

    def loss_of(params, index):
        params = merge(model, recipe.lora, base, params) if recipe.lora else params
        cast = jax.tree.map(lambda x: x.astype(recipe.compute_dtype or x.dtype), params)
        values_SA = losses.batch_losses(model, cast, batch, index)
        groups_2 = losses.group_losses(values_SA, batch.group_MSA[index], batch.counts_2)
        return losses.collapse_loss(groups_2, recipe.retain_weight), groups_2

    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(value_and_grad, state.params, 0))
    add = functools.partial(jax.tree.map, jnp.add)
    (loss, groups_2), grads = jax.lax.fori_loop(0, batch.used, lambda i, total: add(total, value_and_grad(state.params, i)), zero)
    updates, opt_state = optimiser(recipe).update(grads, state.opt_state, state.params)
    metrics = {"loss": loss, "forget_loss": groups_2[0], "retain_loss": groups_2[1], "grad_norm": optax.global_norm(grads)}
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), metrics


def put_batch(batch: Batch, mesh: Any) -> Batch:
    """Host arrays -> global arrays: rows and shards over `data`, scalars and counts everywhere."""
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    everywhere = parallel.replicated(mesh)
    return Batch(*(parallel.put(x, everywhere if x.ndim < 2 else by_rows) for x in batch))
