"""Where a run goes on: the state after its last saved round, or a fresh one."""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import full_recipe, shapes_of_state, start_state
from pmc_jax.training.update import Recipe, TrainState


def saved_state(
    checkpoint: PretrainedModel,
    config: ConfigDict,
    num_rows: int,
    rounds: RoundCheckpointer,
    number: int,
    together: int = 0,
) -> tuple[Recipe, TrainState, dict[str, Any]]:
    """The recipe, the state after a saved round, and the round's notes. No fresh state is made beside it."""
    recipe = full_recipe(checkpoint.family, checkpoint.model, config, num_rows, together)
    return recipe, *rounds.restore(number, like=shapes_of_state(checkpoint, recipe))


def begin(
    checkpoint: PretrainedModel,
    config: ConfigDict,
    num_rows: int,
    rounds: RoundCheckpointer | None,
    clock: Clock,
    together: int = 0,
) -> tuple[Recipe, TrainState, dict[str, Any] | None]:
    """Recipe, state and notes of the last saved round, or a fresh state and None. The clock goes on from the notes'
    seconds.
    """
    with clock.phase("load"):
        last = rounds.latest() if rounds else None
        if last is None:
            return *start_state(checkpoint, config, num_rows, together), None
        recipe, state, notes = saved_state(checkpoint, config, num_rows, rounds, last, together)
        clock.seconds.update({k: v for k, v in notes["seconds"].items() if k != "load"})
        return recipe, state, notes


def is_saved(config: ConfigDict, number: int, total: int) -> bool:
    """Whether round `number` of `total` is saved: every so many, and the last one."""
    return (number + 1) % config.rounds.every == 0 or number + 1 == total
