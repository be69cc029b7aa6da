"""The training loop, the only one: rounds of updates on the rows that a source gives, each round saved."""

import functools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from pmc_jax.data.packing import Batch, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.stopping import patience
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import choose_packing
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.position import NO_HOOKS, Hooks, Position
from pmc_jax.training.precision import warn_if_stuck
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.run import Run, Step
from pmc_jax.training.saving import save_times
from pmc_jax.training.settings import TrainSettings, check_length, make_recipe
from pmc_jax.training.source import Carry, Source
from pmc_jax.training.state import in_training, layouts, restore, shapes_of_state, start_params, start_state, trained
from pmc_jax.training.update import TrainState, layout, on_mesh, put_batch, update, weights_like


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
    """Train on the rows of a source, round by round; go on after the newest whole round where there is one.

    SIGTERM, where the command line handles it: what the current update has made is saved before `Stopped` is raised.

    Args:
        checkpoint: the model to begin with.
        source: gives the rows of each round.
        settings: of training.
        rounds: where rounds are saved; None = nowhere.
        clock: adds up seconds by phase.
        hooks: what is called on the way.
        keep_start: False = the checkpoint's parameters are given away to the training: one copy less in memory. They
            are deleted, unless adapters are trained on top of them.

    Returns:
        The checkpoint with new parameters, and the history up to there: one dict a round, earlier starts included.

    Raises:
        UserError: a number is not finite, or a row could outgrow dynamic RoPE.
    """
    check_length(settings.max_length, checkpoint.config.ropes)
    settings = settings.on(meshes.mesh_of(checkpoint.params))
    recipe = make_recipe(checkpoint.family, checkpoint.model, settings, source.updates_per_epoch)
    with clock or Clock() as clock, patience() as patient:
        keep_start = keep_start or recipe.share != 1.0
        base, now = start_params(checkpoint, recipe, keep_start), functools.partial(in_training, checkpoint, recipe)
        result = functools.partial(now, share=recipe.share)
        state, carry, position = begin(checkpoint, source, recipe, settings.seed, rounds, clock, keep_start)
        if hooks.on_start:
            hooks.on_start(len(position.history))
        expected = source.expected_rows(carry)
        packing = choose_packing(expected, settings.batch, meshes.mesh_of(state.params))
        compiled = compile_update(checkpoint, recipe, state, packing, expected.groups[-1][0], base)
        times = save_times(settings.save_every, settings.save_minutes, state)
        run, is_good = Run(source, settings, recipe, rounds, hooks, clock, patient, times), None
        while is_good is not False and len(position.history) < source.rounds and source.rate(carry):
            number = len(position.history)
            with hooks.watch.around(number):
                start = time.perf_counter()
                current = functools.partial(now, state)
                batches, carry, record, _ = run.rows(number, carry, current, state, position)
                with patient.hold():
                    state = run.train(number, state, carry, batches, packing, compiled, position)
                line = {"round": number} | record | source.losses(position.part["updates"])
                line["seconds"] = time.perf_counter() - start
                carry, is_good = run.end(number, state, carry, line, result, position)
        if run.goes_back(is_good, position):
            del state
            state = run.roll_back(*layouts(checkpoint, recipe), position)
    return trained(checkpoint, recipe, state), position.history


def begin(
    checkpoint: PretrainedModel,
    source: Source,
    recipe: Recipe,
    seed: int,
    rounds: RoundCheckpointer | None,
    clock: Clock,
    keep_start: bool,
) -> tuple[TrainState, Carry, Position]:
    """The state, what the source carries, and how far the run is: fresh, or as the newest whole round left them."""
    saved = restore(checkpoint, recipe, rounds, clock) if rounds else None
    state, notes = saved or (None, None)
    carry = source.begin(notes, clock)  # may ask the start model, which a fresh state may take apart
    if state is None:
        with clock.phase("load"):
            state = start_state(checkpoint, recipe, seed, keep_start)
    elif not (keep_start or recipe.lora):  # the restored parameters took the place of these
        for array in jax.tree.leaves(checkpoint.params):
            array.delete()
    warn_if_stuck(state.params, recipe.learning_rate)
    position = Position.of(notes)
    if rounds:
        rounds.pin(position.good)
    return state, carry, position


def make_step(checkpoint: PretrainedModel, recipe: Recipe, base: Any = None) -> Step:
    """The update step for states with their weights, compiled at its first call. base: what `start_params` gives."""
    mesh, model = meshes.mesh_of(checkpoint.params), checkpoint.model
    shardings = layout(weights_like(shapes_of_state(checkpoint, recipe), recipe))
    return functools.partial(update, on_mesh(model, mesh), recipe, base=base, shardings=shardings)


def compile_update(
    checkpoint: PretrainedModel, recipe: Recipe, state: TrainState, packing: Packing, row: Row, base: Any
) -> Future:
    """The update step, compiled in a thread while the first answers are sampled.

    row: any example. base: what `start_params` gives.
    """
    any_shape = make_step(checkpoint, recipe, base)
    model, options = any_shape.args[0], any_shape.keywords
    mesh = meshes.mesh_of(state.params)
    batch = put_batch(pack([row], packing, mesh.shape["data"]), mesh)
    arrays = (weights_like(state, recipe), batch, options["base"])
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
