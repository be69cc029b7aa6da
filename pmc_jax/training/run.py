"""What a run does in each of its rounds: rows, updates, evaluation, save. It may be told to end in any of them."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from pmc_jax.data.packing import Batch, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.log import log
from pmc_jax.tracking.stopping import Patience, Stopped
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import OtherLayout, RoundCheckpointer
from pmc_jax.training.position import Hooks, Position
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.saving import SaveTimes, is_due
from pmc_jax.training.settings import TrainSettings
from pmc_jax.training.source import Carry, Round, Source, Updates
from pmc_jax.training.update import TrainState, hold_weights, put_batch
from pmc_jax.training.watch import Worked

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass
class Run:
    """What all rounds of a run share, and what this start has done in the round that it is at (`worked`)."""

    source: Source
    settings: TrainSettings
    recipe: Recipe
    rounds: RoundCheckpointer | None
    hooks: Hooks
    clock: Clock
    patient: Patience
    times: SaveTimes
    worked: Worked = dataclasses.field(default_factory=Worked)

    def rows(
        self, number: int, carry: Carry, current: Callable[[], PretrainedModel], state: TrainState, position: Position
    ) -> Round:
        """The rows of a round, or what is left of them of a round that was interrupted."""
        log(f"round {number}")
        self.worked, before = Worked(), self.clock.seconds["sample"]
        if position.part:
            part = position.part
            batches = self.source.batches(number, carry)[len(part["updates"]) :]
            return Round(batches, carry, part["record"], part["seen"])
        try:
            made = self.source.round(number, carry, current, self.clock)
        except Stopped:
            if self.rounds and number and self.rounds.latest() != number - 1:
                self.rounds.save(number - 1, state, self.source.notes(carry) | position.notes(self.clock))
            self.wait()
            raise
        rate = self.source.rate(carry)
        position.part = {"record": made.record, "seen": made.seen, "updates": [], "rate": rate}
        sampling = self.clock.seconds["sample"] - before
        self.worked = Worked(sampled_tokens=made.record.get("sampled_tokens"), sample_seconds=sampling)
        return made

    def train(
        self,
        number: int,
        state: TrainState,
        carry: Carry,
        batches: list[list[Row]],
        packing: Packing,
        compiled: Future,
        position: Position,
    ) -> TrainState:
        """The updates of a round; `Stopped` after the current one where the process is told to end."""
        with self.clock.phase("compile"):
            step = compiled.result()
        self.clock.seconds.setdefault("first_update", self.clock.total())
        before = self.clock.seconds["update"]
        with self.clock.phase("update"):
            state, rate = hold_weights(state, self.recipe), position.part.get("rate", 1.0)
            state, updates = train_on(step, state, batches, packing, self.patient, rate)
            state = state._replace(weights=None)
        self.count(batches[: len(updates)], packing, self.clock.seconds["update"] - before)
        check_finite(updates, number, len(position.part["updates"]))
        position.part["updates"] = position.part["updates"] + updates
        if self.patient.wanted:
            self.save_part(number, state, carry, position)
            raise Stopped
        return state

    def count(self, batches: list[list[Row]], packing: Packing, seconds: float) -> None:
        """Note the updates that were made, and how long they took."""
        rows = [row for batch in batches for row in batch]
        tokens = sum(len(row.tokens) - packing.prefix for row in rows) + packing.prefix * len(batches)
        labels = sum(len(row.tokens) - row.start for row in rows)
        self.worked = self.worked._replace(positions=tokens, labels=labels, update_seconds=seconds)

    def end(
        self,
        number: int,
        state: TrainState,
        carry: Carry,
        line: dict[str, Any],
        model: Callable[[TrainState], PretrainedModel],
        position: Position,
    ) -> tuple[Carry, bool | None]:
        """Evaluate, tell of and save a round, where each is due.

        Returns:
            What is carried into the next round, and what the evaluation said (`Hooks`).
        """
        learnt = self.source.learnt(carry, line)
        is_last, is_good = number + 1 == self.source.rounds or not self.source.rate(learnt), None
        if self.settings.keep_best if is_last else is_due(number, self.settings.evaluate_every):
            # Not what was learnt: a round that is stopped in its evaluation is not over, and counts when it is.
            is_good = self.evaluate(number, state, carry, model, position)
        is_kept = is_last or bool(is_good) or (self.rounds is not None and self.times.is_due(number))
        with self.patient.hold():
            self.finish(number, state, learnt, line, position, save=is_kept and is_good is not False)
        return learnt, is_good

    def evaluate(
        self,
        number: int,
        state: TrainState,
        carry: Carry,
        model: Callable[[TrainState], PretrainedModel],
        position: Position,
    ) -> bool | None:
        """What is said of the model; None where nobody looks at it. The round to go back to stays on disk."""
        if not self.hooks.on_evaluate:
            return None
        try:
            with self.clock.phase("evaluate"):
                is_good = self.hooks.on_evaluate(number, model(state))
        except Stopped:
            self.save_part(number, state, carry, position)
            raise
        if is_good:
            position.good = number
            if self.rounds:
                self.rounds.pin(number)
        return is_good

    def save_part(self, number: int, state: TrainState, carry: Carry, position: Position) -> None:
        """Save a round that is interrupted."""
        if self.rounds:
            notes = self.source.notes(carry) | position.notes(self.clock)
            self.rounds.save_part(number, len(position.part["updates"]), state, notes)

    def finish(
        self, number: int, state: TrainState, carry: Carry, line: dict[str, Any], position: Position, save: bool
    ) -> None:
        """Tell of a round, and save it."""
        part, position.part = position.part, None
        position.history.append(line)
        self.hooks.watch.worked(number, self.worked)
        with self.clock.phase("save"):
            if self.hooks.on_round:
                self.hooks.on_round(line, part["seen"], part["updates"])
            if self.rounds and (save or self.patient.wanted):
                self.rounds.save(number, state, self.source.notes(carry) | position.notes(self.clock))
                self.times.saved()
        if self.patient.wanted:
            self.wait()
            raise Stopped

    def goes_back(self, is_good: bool | None, position: Position) -> bool:
        """Whether a run that has ended goes back to an earlier round. is_good: what its last evaluation said."""
        is_earlier = position.good not in (None, len(position.history) - 1)
        return is_good is False or (self.settings.keep_best and is_earlier)

    def roll_back(self, like: TrainState, other: OtherLayout | None, position: Position) -> TrainState:
        """The state of the round that was called good. UserError where there is none."""
        if self.rounds is None or position.good is None:
            raise UserError(
                f"round {len(position.history) - 1}: utility fell below guard.min_utility, and no earlier round was "
                "evaluated and good enough; a lower train.learning_rate, a larger pmc.retain_weight or a smaller "
                "evaluate.every may help"
            )
        self.wait()
        state, _ = self.rounds.restore(position.good, like, other)
        del position.history[position.good + 1 :]
        return state

    def wait(self) -> None:
        """Until all that was saved is on disk."""
        if self.rounds:
            self.rounds.wait()


def check_finite(updates: Updates, number: int, first: int = 0) -> None:
    """UserError where a loss or a gradient is no finite number: saving on would push out the good rounds before.

    first: updates of the round that an earlier start has made.
    """
    for batch, metrics in enumerate(updates, first):
        if not all(np.isfinite(value) for value in metrics.values()):
            raise UserError(
                f"round {number}, batch {batch}: the loss is {metrics['loss']:.4g}, the gradient's norm "
                f"{metrics['grad_norm']:.4g}: no finite numbers; a lower train.learning_rate may help. Rounds saved "
                "before are as they were"
            )


def train_on(
    step: Step,
    state: TrainState,
    batches: list[list[Row]],
    packing: Packing,
    patient: Patience | None = None,
    rate: float = 1.0,
) -> tuple[TrainState, Updates]:
    """One update a batch. One is sent off while the one before it runs; the metrics are read after the last.

    Args:
        step: one update.
        state: before the first; its buffers are given away.
        batches: the rows of each update.
        packing: the shape that batches are packed into.
        patient: no update begins once it is told to end; None = nobody tells.
        rate: the share of the schedule's learning rate.

    Returns:
        The state after the last update, and the metrics of each.
    """
    mesh = meshes.mesh_of(state.params)
    pending: list[dict[str, jax.Array]] = []
    for rows in batches:
        if patient and patient.wanted:
            break
        if len(pending) > 1:
            jax.block_until_ready(pending[-2])
        state, metrics = step(state, put_batch(pack(rows, packing, mesh.shape["data"], rate), mesh))
        pending.append(metrics)
    return state, [{k: float(v) for k, v in m.items()} for m in jax.device_get(pending)]
