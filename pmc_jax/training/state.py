"""The state that is trained: made fresh, read from a saved round, and put back into a model."""

from typing import Any

import jax
import jax.numpy as jnp

from pmc_jax.distributed import meshes
from pmc_jax.models import lora
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.update import TrainState, abstract_state, create_state


def shapes_of_state(checkpoint: PretrainedModel, recipe: Recipe) -> TrainState:
    """Shapes, dtypes and shardings of the state that is trained."""
    mesh = meshes.mesh_of(checkpoint.params)
    return abstract_state(
        lora.abstract(checkpoint.model, recipe.lora, mesh) if recipe.lora else checkpoint.params, recipe
    )


def start_params(checkpoint: PretrainedModel, recipe: Recipe) -> Any:
    """What each update reads of the start model; None where it reads nothing.

    Under adapters these are the checkpoint's own parameters. Otherwise they are a copy in the dtype of the forward
    pass: the checkpoint's may be given away to the training.
    """
    if recipe.lora:
        return checkpoint.params
    if not recipe.needs_start:
        return None

    def copy(x: jax.Array) -> jax.Array:
        dtype = recipe.compute_dtype or x.dtype
        return jnp.copy(x) if x.dtype == dtype else x.astype(dtype)

    return jax.tree.map(copy, checkpoint.params)


def start_state(checkpoint: PretrainedModel, recipe: Recipe, seed: int, keep_start: bool = True) -> TrainState:
    """The state before the first update: of the parameters, or of fresh adapters, which `seed` draws."""
    if not recipe.lora:
        return create_state(checkpoint.params, recipe, copy=keep_start)
    adapters = lora.create(checkpoint.model, recipe.lora, seed, meshes.mesh_of(checkpoint.params))
    return create_state(adapters, recipe)


def restore_or_start(
    checkpoint: PretrainedModel,
    recipe: Recipe,
    seed: int,
    rounds: RoundCheckpointer | None,
    clock: Clock,
    keep_start: bool = True,
) -> tuple[TrainState, dict[str, Any] | None]:
    """The state after the newest whole round, or a fresh one. Never both at a time.

    Args:
        checkpoint: the model that the run began with.
        recipe: of the run.
        seed: of fresh adapters.
        rounds: where rounds are saved; None = nowhere.
        clock: goes on from the seconds of the saved round.
        keep_start: whether a fresh state has copies of the checkpoint's parameters, or those themselves.

    Returns:
        The state, and the notes of the saved round; None for a fresh state.
    """
    with clock.phase("load"):
        saved = rounds.restore_newest(like=shapes_of_state(checkpoint, recipe)) if rounds else None
        if saved is None:
            return start_state(checkpoint, recipe, seed, keep_start), None
        state, notes = saved
        clock.seconds.update({k: v for k, v in notes["seconds"].items() if k != "load"})
        return state, notes


def trained(checkpoint: PretrainedModel, recipe: Recipe, state: TrainState) -> PretrainedModel:
    """The checkpoint with the state's parameters, or with the state's adapters merged into its own.

    Where the objective is negated: what training changed is taken from the checkpoint's parameters, `scale` times.
    """
    objective, params = recipe.objective, state.params
    scale = recipe.hyperparameters["scale"] if objective.negated else 0.0
    if not recipe.lora:
        if objective.negated:
            params = jax.tree.map(
                lambda start, now: (start - scale * (now - start)).astype(start.dtype), checkpoint.params, params
            )
        return checkpoint.replace(params=params)
    if objective.negated:
        params = {key: sides | {"b": -scale * sides["b"]} for key, sides in params.items()}
    merged = lora.merge(checkpoint.model, recipe.lora, checkpoint.params, params)
    return checkpoint.replace(params=merged, adapters=(recipe.lora, params))


def with_remat(checkpoint: PretrainedModel, remat: bool) -> PretrainedModel:
    """The checkpoint with a model that recomputes activations in the backward pass, or does not."""
    return checkpoint.replace(model=checkpoint.model.clone(remat=remat))
