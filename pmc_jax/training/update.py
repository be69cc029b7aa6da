"""Optimizer and the donated, jitted training step."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pmc_jax.data.packing import Batch
from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.models.lora import Lora, merge
from pmc_jax.training import losses


class TrainState(NamedTuple):
    """What is trained (the parameters, or the adapters of them), optimizer state and the number of updates done."""

    params: Any
    opt_state: Any
    step: jax.Array


class Recipe(NamedTuple):
    """What shapes an update beyond the batch; hashable, so that it is a static argument.

    optimizer: "adamw" or "adafactor". moment_dtype: of AdamW's first moment (empty: the parameters' own).
    compute_dtype: parameters are cast to it for the forward and backward pass (empty: as they are); gradients come back
    in their own dtype.
    lora: which adapters are trained instead of the parameters.
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    total_steps: int
    grad_clip: float
    retain_weight: float
    compute_dtype: str
    optimizer: str = "adamw"
    moment_dtype: str = ""
    lora: Lora | None = None


def decays(params: Any) -> Any:
    """True for parameters that weight decay applies to: all but biases and norms."""

    def is_weight(path, _):
        name = path[-1].key
        return not (name == "scale" or name.endswith("bias"))

    return jax.tree_util.tree_map_with_path(is_weight, params)


def schedule(recipe: Recipe) -> optax.Schedule:
    """Linear from 0 to the learning rate over the warm-up, then linear to 0 at the last step; the first update has rate
    0 (as published).
    """
    rest = max(1, recipe.total_steps - recipe.warmup_steps)
    warm_up = optax.linear_schedule(0.0, recipe.learning_rate, max(1, recipe.warmup_steps))
    decay = optax.linear_schedule(recipe.learning_rate, 0.0, rest)
    return optax.join_schedules([warm_up, decay], [recipe.warmup_steps]) if recipe.warmup_steps else decay


def global_norm(grads: Any) -> jax.Array:
    """`optax.global_norm` in float32, whatever the gradients are kept in: bfloat16 sums of squares have three
    digits.
    """
    return optax.global_norm(jax.tree.map(lambda g: g.astype(jnp.float32), grads))


def clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` as one factor, as torch has it. Its quotient of each gradient would be written out,
    and read again twice.
    """

    def clip(grads, _):
        factor = jnp.minimum(1.0, most / global_norm(grads))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)

    return optax.stateless(clip)


@functools.lru_cache(maxsize=4)
def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (b1 .9, b2 .999, eps 1e-8), or Adafactor without its first moment and
    parameter scale.

    Both have the same learning rate and decoupled weight decay. Adafactor (Shazeer and Stern, 2018) keeps a row and a
    column of second moments instead of two numbers a parameter.
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


def abstract_state(params: Any, recipe: Recipe) -> TrainState:
    """Shapes and shardings of a state: the optimizer's laid out like the parameters, counters and factors of moments on
    every device.

    params: arrays, or shapes as well.
    """
    tx = optimizer(recipe)
    everywhere = meshes.replicated(meshes.mesh_of(params))

    def layout(moment, param):
        return param.sharding if moment.shape == param.shape else everywhere

    shapes = jax.eval_shape(tx.init, params)
    shardings = optax.tree.map_params(tx, layout, shapes, params, transform_non_params=lambda _: everywhere)
    found = (
        TrainState(params, shapes, jax.ShapeDtypeStruct((), jnp.int32)),
        TrainState(jax.tree.map(lambda x: x.sharding, params), shardings, everywhere),
    )
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), *found)


def create_state(params: Any, recipe: Recipe) -> TrainState:
    """A state before its first update. The parameters are copied: an update donates its state."""
    like = jax.tree.map(lambda x: x.sharding, abstract_state(params, recipe))
    opt_state = jax.jit(optimizer(recipe).init, out_shardings=like.opt_state)(params)
    return TrainState(jax.tree.map(jnp.copy, params), opt_state, meshes.put(np.int32(0), like.step))


def layout(state: TrainState) -> tuple[NamedSharding, ...]:
    """Where the leaves of a state lie, hashable."""
    return tuple(x.sharding for x in jax.tree.leaves(state))


@functools.partial(jax.jit, static_argnames=("model", "recipe", "at"), donate_argnames=("state",))
def update(
    model: Decoder,
    recipe: Recipe,
    state: TrainState,
    batch: Batch,
    base: Any = None,
    at: tuple[NamedSharding, ...] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on a batch. Micro-batches are summed: their number changes memory, not the result.

    base: the parameters that adapters are added to, where adapters are trained.
    at: the `layout` that the new state gets. Left to the compiler (None), adapters would come back laid out like the
    weights that they change. Returns the new state and scalars: forget_loss, retain_loss (means over labels of the
    whole batch), loss, grad_norm.
    """

    def loss_of(params, index):
        params = merge(model, recipe.lora, base, params) if recipe.lora else params
        cast = jax.tree.map(lambda x: x.astype(recipe.compute_dtype or x.dtype), params)
        values_SA = losses.batch_losses(model, cast, batch, index)
        groups_2 = losses.group_losses(values_SA, batch.group_MSA[index], batch.counts_2)
        return losses.collapse_loss(groups_2, recipe.retain_weight), groups_2

    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    zero = (jnp.float32(0), jnp.zeros(2)), jax.tree.map(jnp.zeros_like, state.params)
    add = functools.partial(jax.tree.map, jnp.add)
    (loss, groups_2), grads = jax.lax.fori_loop(
        0, batch.used, lambda i, total: add(total, value_and_grad(state.params, i)), zero
    )
    updates, opt_state = optimizer(recipe).update(grads, state.opt_state, state.params)
    metrics = {"loss": loss, "forget_loss": groups_2[0], "retain_loss": groups_2[1], "grad_norm": global_norm(grads)}
    new = TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
    return jax.lax.with_sharding_constraint(
        new, jax.tree.unflatten(jax.tree.structure(new), at)
    ) if at else new, metrics


def batch_shardings(batch: Batch, mesh: Mesh) -> Batch:
    """Rows and shards over `data`, scalars and counts everywhere."""
    by_rows = NamedSharding(mesh, PartitionSpec(None, "data"))
    return Batch(*(meshes.replicated(mesh) if x.ndim < 2 else by_rows for x in batch))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Host arrays -> global arrays."""
    return Batch(*map(meshes.put, batch, batch_shardings(batch, mesh)))


def on_mesh(model: Decoder, mesh: Mesh) -> Decoder:
    """The model as it is trained on a mesh: hidden states stay with the device that has their row. With `data` of one
    there is no choice.
    """
    return model.clone(activations=meshes.rows(mesh)) if mesh.shape["data"] > 1 else model
