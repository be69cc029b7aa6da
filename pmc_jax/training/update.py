"""The training state and the donated, jitted training step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pmc_jax.data.packing import GROUPS, REFUSAL, Batch
from pmc_jax.distributed import meshes
from pmc_jax.distributed.gathering import gather_over_data
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder
from pmc_jax.models.lora import merge
from pmc_jax.training import objectives
from pmc_jax.training.forward import compute_terms
from pmc_jax.training.objectives.objective import wanted as make_wanted
from pmc_jax.training.optimizer import global_norm, make_optimizer
from pmc_jax.training.recipe import Recipe

__all__ = [
    "Recipe",
    "TrainState",
    "abstract_state",
    "batch_shardings",
    "cast",
    "create_state",
    "hold_weights",
    "layout",
    "on_mesh",
    "put_batch",
    "update",
    "weights_like",
]


class TrainState(NamedTuple):
    """What an update changes.

    Attributes:
        params: what is trained: the parameters, or the adapters of them.
        opt_state: the optimizer's state.
        step: int32, updates done.
        moving: float32, the objective's hyperparameters that move, by name; None where there are none.
        weights: the parameters in the dtype of the forward pass, within a round (`hold_weights`); None = each update
            makes them.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    moving: dict[str, jax.Array] | None = None
    weights: Any = None


def abstract_state(params: Any, recipe: Recipe) -> TrainState:
    """Shapes and shardings of a state.

    The optimizer's moments are laid out like the parameters, counters and factors of moments on every device.

    Args:
        params: arrays, or their shapes and shardings.
        recipe: which optimizer.
    """
    tx = make_optimizer(recipe)
    everywhere = meshes.replicated_sharding(meshes.mesh_of(params))

    def layout(moment, param):
        return param.sharding if moment.shape == param.shape else everywhere

    shapes = jax.eval_shape(tx.init, params)
    of_moments = optax.tree.map_params(tx, layout, shapes, params, transform_non_params=lambda _: everywhere)
    moving = dict.fromkeys(recipe.objective.moving, jax.ShapeDtypeStruct((), jnp.float32)) or None
    state = TrainState(params, shapes, jax.ShapeDtypeStruct((), jnp.int32), moving)
    of_moving = jax.tree.map(lambda _: everywhere, moving)
    shardings = TrainState(jax.tree.map(lambda x: x.sharding, params), of_moments, everywhere, of_moving)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def create_state(params: Any, recipe: Recipe, copy: bool = True) -> TrainState:
    """A state before its first update, which donates it: without `copy`, the given parameters are gone then."""
    like = jax.tree.map(lambda x: x.sharding, abstract_state(params, recipe))
    opt_state = jax.jit(make_optimizer(recipe).init, out_shardings=like.opt_state)(params)
    own = jax.tree.map(jnp.copy, params) if copy else params
    start = {name: np.float32(recipe.hyperparameters[name]) for name in recipe.objective.moving} or None
    return TrainState(own, opt_state, meshes.put(np.int32(0), like.step), jax.tree.map(meshes.put, start, like.moving))


def weights_like(state: TrainState, recipe: Recipe) -> TrainState:
    """Shapes and shardings of the state, with those of its weights where they differ from the parameters in dtype."""
    dtype = recipe.compute_dtype
    if recipe.lora or not dtype or all(x.dtype == dtype for x in jax.tree.leaves(state.params)):
        return state
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), state.params)
    return state._replace(weights=weights)


def hold_weights(state: TrainState, recipe: Recipe) -> TrainState:
    """The state for several updates: each leaves the weights that the next one takes. They are written along with the
    parameters then, which need not be read for them once more.
    """
    if weights_like(state, recipe).weights is None:
        return state
    shardings = tuple(x.sharding for x in jax.tree.leaves(state.params))
    return state._replace(weights=_make_weights(state.params, recipe.compute_dtype, shardings))


@functools.partial(jax.jit, static_argnames=("dtype", "shardings"))
def _make_weights(params: Any, dtype: str, shardings: tuple[NamedSharding, ...]) -> Any:
    weights, structure = jax.tree.flatten(cast(params, dtype))
    return jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, weights, shardings))


def layout(state: TrainState) -> tuple[NamedSharding, ...]:
    """Where the leaves of a state lie, hashable."""
    return tuple(x.sharding for x in jax.tree.leaves(state))


def cast(params: Any, dtype: str) -> Any:
    """The parameters in the dtype of the forward pass; as they are where it is empty."""
    return jax.tree.map(lambda x: x.astype(dtype or x.dtype), params)


def of_pass(params: Any, recipe: Recipe, shardings: tuple[NamedSharding, ...] | None) -> Any:
    """Parameters or weights as a forward and backward pass takes them. shardings: the layout of the state that they
    begin.
    """
    weights = cast(params, recipe.compute_dtype)
    if not recipe.gather_once:
        return weights
    if not shardings:
        raise ValueError("gather_once: the update needs the state's layout as shardings")
    return gather_over_data(weights, shardings[: len(jax.tree.leaves(weights))])


@functools.partial(jax.jit, static_argnames=("model", "recipe", "shardings"), donate_argnames=("state",))
def update(
    model: Decoder,
    recipe: Recipe,
    state: TrainState,
    batch: Batch,
    base: Any = None,
    shardings: tuple[NamedSharding, ...] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on a batch. Micro-batches are summed: their number changes memory, not the result.

    Args:
        model: the decoder; with `activations` set on a mesh (`on_mesh`).
        recipe: objective, optimizer and compute dtype.
        state: donated: its arrays are gone afterwards.
        batch: packed rows.
        base: the parameters that the run began with, where it needs them: adapters are added to them, or the objective
            compares with them.
        shardings: the `layout` that the new state gets. Left to the compiler (None), adapters would come back laid out
            like the weights that they change.

    Returns:
        The new state, and float32 scalars: loss (the objective), forget_loss and retain_loss (means of -log p over the
        group's labels of the whole batch, whatever the objective), grad_norm; refusal_loss where there are alternate
        answers; and the hyperparameters that move, as they were in this update.

    Raises:
        UserError: the objective's loss is not a scalar, or it asks for a layer that the model does not have.
        ValueError: weights are to be gathered once, and no layout is given.
    """
    objective = recipe.objective
    hyper = recipe.hyperparameters | (state.moving or {})
    wanted = make_wanted(objective, hyper, base and cast(base, recipe.compute_dtype))

    def loss_of(params, index):
        params = merge(model, recipe.lora, base, params) if recipe.lora else params
        terms = compute_terms(model, of_pass(params, recipe, shardings), batch, index, wanted)
        losses_G = jnp.stack([objectives.mean_nll(terms, group) for group in GROUPS])
        loss = jnp.asarray(objective.loss(terms, hyper), jnp.float32)
        if loss.shape:
            raise UserError(f"the objective's loss has the shape {loss.shape}; it must be one number a micro-batch")
        return loss, losses_G

    weights = state.params if state.weights is None else state.weights
    (loss, losses_G), grads = sum_micro_batches(jax.value_and_grad(loss_of, has_aux=True), weights, batch)
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
    updates, opt_state = make_optimizer(recipe).update(grads, state.opt_state, state.params)
    metrics = {"loss": loss, "forget_loss": losses_G[0], "retain_loss": losses_G[1], "grad_norm": global_norm(grads)}
    if hyper.get("refusal_weight") or objective.alternates != "none":
        metrics["refusal_loss"] = losses_G[GROUPS.index(REFUSAL)]
    moving = state.moving
    if moving:
        metrics |= moving
        moment = objectives.Moment(losses_G[0], losses_G[1], state.step / recipe.updates_per_epoch)
        moving = {name: jnp.asarray(x, jnp.float32) for name, x in objective.move(hyper, moment).items()}
    params = apply_updates(state.params, updates, batch.rate)
    weights = None if state.weights is None else cast(params, recipe.compute_dtype)
    new = TrainState(params, opt_state, state.step + 1, moving, weights)
    if shardings:
        new = jax.lax.with_sharding_constraint(new, jax.tree.unflatten(jax.tree.structure(new), shardings))
    return new, metrics


def apply_updates(params: Any, updates: Any, rate: jax.Array) -> Any:
    """`optax.apply_updates`, of a share of the updates. rate: the share, a scalar."""
    return optax.apply_updates(params, jax.tree.map(lambda u: u * rate.astype(u.dtype), updates))


def sum_micro_batches(value_and_grad: Callable[..., Any], params: Any, batch: Batch) -> Any:
    """The sum over micro-batches, added up in float32: in bfloat16 each sum would keep three digits. A single one needs
    no loop, and no second tree of gradients to add to.

    Args:
        value_and_grad: (params, index) -> ((loss, means by group), gradients).
        params: of any float dtype.
        batch: packed rows.

    Returns:
        What `value_and_grad` returns, summed; gradients in float32, or of a single one in the parameters' own dtypes.
    """
    if batch.tokens_MRT.shape[0] == 1:
        return value_and_grad(params, 0)
    like = jax.eval_shape(value_and_grad, params, 0)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)
    return jax.lax.fori_loop(
        0, batch.used, lambda i, total: jax.tree.map(jnp.add, total, value_and_grad(params, i)), zero
    )


def batch_shardings(batch: Batch, mesh: Mesh) -> Batch:
    """Rows and shards over `data`, scalars and counts everywhere."""
    by_rows = NamedSharding(mesh, PartitionSpec(None, "data"))
    return Batch(*(meshes.replicated_sharding(mesh) if x.ndim < 2 else by_rows for x in batch))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Host arrays -> global arrays."""
    return Batch(*map(meshes.put, batch, batch_shardings(batch, mesh)))


def on_mesh(model: Decoder, mesh: Mesh) -> Decoder:
    """The model as it is trained on a mesh: hidden states stay with the device that has their row. With `data` of one
    there is no choice.
    """
    return model.clone(activations=meshes.row_sharding(mesh)) if mesh.shape["data"] > 1 else model
