"""The state that is trained: made fresh, read from a saved round, and put back into a model."""

from typing import Any

import jax
import jax.numpy as jnp

from pmc_jax.distributed import meshes
from pmc_jax.models import lora
from pmc_jax.models.layer_stack import stack_shapes
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import OtherLayout, RoundCheckpointer
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.stacking import can_be_stacked, is_stacked, stack_params, unstack_params
from pmc_jax.training.update import TrainState, abstract_state, create_state


def shapes_of_state(checkpoint: PretrainedModel, recipe: Recipe) -> TrainState:
    """Shapes, dtypes and shardings of the state that is trained."""
    if recipe.lora:
        mesh = meshes.mesh_of(checkpoint.params)
        return abstract_state(lora.abstract(checkpoint.model, recipe.lora, mesh), recipe)
    return abstract_state(params_like(checkpoint, is_stacked(checkpoint.model, recipe)), recipe)


def params_like(checkpoint: PretrainedModel, stacked: bool) -> Any:
    """Shapes, dtypes and shardings of the checkpoint's parameters, with their layers stacked or one by one."""
    layers = checkpoint.model.config.layers
    return stack_shapes(layers, checkpoint.params) if stacked else checkpoint.params


def other_layout(checkpoint: PretrainedModel, recipe: Recipe) -> OtherLayout | None:
    """How another kind of device saves a round of the same run: stacked, or not. None where all save the same."""
    model = checkpoint.model
    if not can_be_stacked(model, recipe):
        return None
    stacked = is_stacked(model, recipe)

    def is_params(tree: Any) -> bool:
        return isinstance(tree, dict) and ("layer_0" in tree or "stack_0" in tree)

    def convert_params(tree: Any) -> Any:
        return stack_params(model, tree) if stacked else unstack_params(model, tree, checkpoint.params)

    def convert(state: TrainState) -> TrainState:
        return jax.tree.map(lambda x: convert_params(x) if is_params(x) else x, state, is_leaf=is_params)

    return OtherLayout(abstract_state(params_like(checkpoint, not stacked), recipe), convert)


def layouts(checkpoint: PretrainedModel, recipe: Recipe) -> tuple[TrainState, OtherLayout | None]:
    """What a saved round of a run may hold, as `RoundCheckpointer.restore` takes it."""
    return shapes_of_state(checkpoint, recipe), other_layout(checkpoint, recipe)


def start_params(checkpoint: PretrainedModel, recipe: Recipe, keep_start: bool = False) -> Any:
    """What each update reads of the start model, in the dtype of the forward pass; None where it reads nothing.

    Under adapters these are the checkpoint's own parameters. Otherwise they are a copy, unless the checkpoint keeps its
    parameters (`keep_start`) and they have that dtype and layout.
    """
    if recipe.lora:
        return checkpoint.params
    if not recipe.needs_start:
        return None

    def copy(x: jax.Array) -> jax.Array:
        dtype = recipe.compute_dtype or x.dtype
        if x.dtype != dtype:
            return x.astype(dtype)
        return x if keep_start else jnp.copy(x)

    copied = jax.tree.map(copy, checkpoint.params)
    return stack_params(checkpoint.model, copied) if is_stacked(checkpoint.model, recipe) else copied


def start_state(checkpoint: PretrainedModel, recipe: Recipe, seed: int, keep_start: bool = True) -> TrainState:
    """The state before the first update: of the parameters, or of fresh adapters, which `seed` draws."""
    if is_stacked(checkpoint.model, recipe):
        return create_state(stacked_start(checkpoint, keep_start), recipe, copy=False)
    if not recipe.lora:
        return create_state(checkpoint.params, recipe, copy=keep_start)
    adapters = lora.create(checkpoint.model, recipe.lora, seed, meshes.mesh_of(checkpoint.params))
    return create_state(adapters, recipe)


def stacked_start(checkpoint: PretrainedModel, keep_start: bool) -> Any:
    """The checkpoint's parameters with their layers stacked. What is no layer's is copied, or given away; then the
    layers' own arrays are deleted.
    """
    params = stack_params(checkpoint.model, checkpoint.params)
    shared = params.keys() & checkpoint.params.keys()
    if keep_start:
        return params | {name: jax.tree.map(jnp.copy, params[name]) for name in shared}
    for name in checkpoint.params.keys() - shared:
        jax.tree.map(lambda x: x.delete(), checkpoint.params[name])
    return params


def restore(
    checkpoint: PretrainedModel, recipe: Recipe, rounds: RoundCheckpointer, clock: Clock
) -> tuple[TrainState, dict[str, Any]] | None:
    """The state and the notes of the newest whole round; None where none was saved.

    Args:
        checkpoint: the model that the run began with.
        recipe: of the run.
        rounds: where rounds are saved.
        clock: goes on from the seconds of the saved round.
    """
    with clock.phase("load"):
        saved = rounds.restore_newest(*layouts(checkpoint, recipe))
    if saved:
        clock.seconds.update({k: v for k, v in saved[1]["seconds"].items() if k != "load"})
    return saved


def trained(checkpoint: PretrainedModel, recipe: Recipe, state: TrainState) -> PretrainedModel:
    """The checkpoint with the parameters that the run ends with: `recipe.share` of what training changed."""
    model = in_training(checkpoint, recipe, state, recipe.share)
    return model.replace(params=unstack_params(model.model, model.params, checkpoint.params))


def in_training(checkpoint: PretrainedModel, recipe: Recipe, state: TrainState, share: float = 1.0) -> PretrainedModel:
    """The checkpoint with the state's parameters, or with the state's adapters merged into its own. Its layers may be
    stacked, as the state's are: to sample from and to evaluate, no more.

    share: of what training changed; other than 1, the checkpoint's own parameters are read.
    """
    params = state.params
    if not recipe.lora:
        if share != 1.0:
            params = unstack_params(checkpoint.model, params, checkpoint.params)
            params = jax.tree.map(
                lambda start, now: (start + share * (now - start)).astype(start.dtype), checkpoint.params, params
            )
        return checkpoint.replace(params=params)
    if share != 1.0:
        params = {key: sides | {"b": share * sides["b"]} for key, sides in params.items()}
    merged = lora.merge(checkpoint.model, recipe.lora, checkpoint.params, params)
    return checkpoint.replace(params=merged, adapters=(recipe.lora, params))


def with_remat(checkpoint: PretrainedModel, remat: bool) -> PretrainedModel:
    """The checkpoint with a model that recomputes activations in the backward pass, or does not."""
    return checkpoint.replace(model=checkpoint.model.clone(remat=remat))
