"""The training loop, the only one: rounds of updates on the rows that a source gives, each round saved."""

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from pmc_jax.data.packing import Batch, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import choose_packing
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.precision import warn_if_stuck
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.settings import TrainSettings, check_length, make_recipe
from pmc_jax.training.source import Source, Updates
from pmc_jax.training.state import restore_or_start, shapes_of_state, trained
from pmc_jax.training.update import TrainState, layout, on_mesh, put_batch, update

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


class Hooks(NamedTuple):
    """What is called after a round.

    Attributes:
        on_round: gets the round's line of the history, what was sampled, and the metrics of its updates. A round is
            told before it is saved: lines of a round that a kill left unsaved are dropped on resume.
        on_evaluate: gets the number of the round and the model as it is then, every `evaluate_every` rounds but the
            last.
    """

    on_round: Callable[[dict[str, Any], list[dict[str, Any]], Updates], None] | None = None
    on_evaluate: Callable[[int, PretrainedModel], None] | None = None


NO_HOOKS = Hooks()


def fit(
    checkpoint: PretrainedModel,
    source: Source,
    settings: TrainSettings,
    *,
    rounds: RoundCheckpointer | None = None,
    clock: Clock | None = None,
    hooks: Hooks = NO_HOOKS,
    keep_start: bool = True,
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """Train on the rows of a source, round by round; go on after the last saved round where there is one.

    Args:
        checkpoint: the model to begin with.
        source: gives the rows of each round.
        settings: of training.
        rounds: where rounds are saved; None = nowhere.
        clock: adds up seconds by phase.
        hooks: what is called after a round.
        keep_start: False = the checkpoint's parameters are given away to the training: one copy less in memory. They
            are deleted, unless adapters are trained on top of them.

    Returns:
        The checkpoint with new parameters, and the history: one dict a round, those of earlier starts included.

    Raises:
        UserError: a loss is not a finite number, or a row could outgrow dynamic RoPE.
    """
    check_length(settings.max_length, checkpoint.config.ropes)
    settings = settings.on(meshes.mesh_of(checkpoint.params))
    recipe = make_recipe(checkpoint.family, checkpoint.model, settings, source.updates_per_epoch)
    with clock or Clock() as clock:
        state, carry, history = begin(checkpoint, source, recipe, settings.seed, rounds, clock, keep_start)
        expected = source.expected_rows(carry)
        packing = choose_packing(expected, settings.batch, meshes.mesh_of(state.params))
        compiled = compile_update(checkpoint, recipe, state, packing, expected.groups[-1][0])
        for number in range(len(history), source.rounds):
            start = time.perf_counter()
            current = functools.partial(trained, checkpoint, recipe, state)
            batches, carry, record, seen = source.round(number, carry, current, clock)
            with clock.phase("compile"):
                step = compiled.result()
            clock.seconds.setdefault("first_update", clock.total())
            with clock.phase("update"):
                state, updates = train_on(step, state, batches, packing)
            check_finite(updates, number)
            record = {"round": number} | record | source.losses(updates)
            history.append(record | {"seconds": time.perf_counter() - start})
            is_last = number + 1 == source.rounds
            if hooks.on_evaluate and is_due(number, settings.evaluate_every) and not is_last:
                with clock.phase("evaluate"):
                    hooks.on_evaluate(number, trained(checkpoint, recipe, state))
            with clock.phase("save"):
                if hooks.on_round:
                    hooks.on_round(history[-1], seen, updates)
                if rounds and (is_last or is_due(number, settings.save_every)):
                    # Copies: the notes are written while the next round adds to both.
                    run_notes = {"history": list(history), "seconds": dict(clock.seconds)}
                    rounds.save(number, state, source.notes(carry) | run_notes)
    return trained(checkpoint, recipe, state), history


def begin(
    checkpoint: PretrainedModel,
    source: Source,
    recipe: Recipe,
    seed: int,
    rounds: RoundCheckpointer | None,
    clock: Clock,
    keep_start: bool,
) -> tuple[TrainState, Any, list[dict[str, Any]]]:
    """The state, what the source carries, and the history: fresh, or as the last saved round left them."""
    state, notes = restore_or_start(checkpoint, recipe, seed, rounds, clock, keep_start)
    warn_if_stuck(state.params, recipe.learning_rate)
    carry = source.begin(notes, clock)
    if notes and not (keep_start or recipe.lora):  # the restored parameters took the place of these
        for array in jax.tree.leaves(checkpoint.params):
            array.delete()
    return state, carry, notes["history"] if notes else []


def is_due(number: int, every: int) -> bool:
    """Whether what happens every so many rounds happens after round `number`; 0 = never."""
    return bool(every) and (number + 1) % every == 0


def check_finite(updates: Updates, number: int) -> None:
    """UserError where a loss is no finite number: saving on would push out the good rounds before."""
    if not all(np.isfinite(u["loss"]) for u in updates):
        raise UserError(
            f"round {number}: the loss is not a finite number; a lower train.learning_rate may help. Rounds saved "
            "before are as they were"
        )


def make_step(checkpoint: PretrainedModel, recipe: Recipe) -> Step:
    """The update step, compiled at its first call."""
    mesh, model = meshes.mesh_of(checkpoint.params), checkpoint.model
    shardings = layout(shapes_of_state(checkpoint, recipe))
    base = checkpoint.params if recipe.lora else None
    return functools.partial(update, on_mesh(model, mesh), recipe, base=base, shardings=shardings)


def compile_update(
    checkpoint: PretrainedModel, recipe: Recipe, state: TrainState, packing: Packing, row: Row
) -> Future:
    """The update step, compiled in a thread while the first answers are sampled. row: any example."""
    any_shape = make_step(checkpoint, recipe)
    model, options = any_shape.args[0], any_shape.keywords
    mesh = meshes.mesh_of(state.params)
    batch = put_batch(pack([row], packing, mesh.shape["data"]), mesh)
    arrays = (state, batch, options["base"])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arrays)

    def build() -> Step:
        compiled = update.lower(model, recipe, *shapes, shardings=options["shardings"]).compile()

        def step(state: TrainState, batch: Batch):
            if batch.tokens_MRT.shape == shapes[1].tokens_MRT.shape:
                return compiled(state, batch, options["base"])
            return any_shape(state, batch)  # a batch of far longer answers than planned for has more micro-batches

        return step

    pool = ThreadPoolExecutor(1)
    step = pool.submit(build)
    pool.shutdown(wait=False)
    return step


def train_on(step: Step, state: TrainState, batches: list[list[Row]], packing: Packing) -> tuple[TrainState, Updates]:
    """One update a batch. The metrics are read only after the last update was sent off.

    Args:
        step: one update.
        state: before the first; its buffers are given away.
        batches: the rows of each update.
        packing: the shape that batches are packed into.

    Returns:
        The state after the last update, and the metrics of each.
    """
    mesh = meshes.mesh_of(state.params)
    pending: list[dict[str, jax.Array]] = []
    for rows in batches:
        state, metrics = step(state, put_batch(pack(rows, packing, mesh.shape["data"]), mesh))
        pending.append(metrics)
    return state, [{k: float(v) for k, v in m.items()} for m in jax.device_get(pending)]
