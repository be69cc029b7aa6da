"""Sources whose answers are given: fine-tuning, and unlearning from the answers of the data. An epoch is a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.methods.schedule import Schedule, draw_retain_rows, round_questions
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import ExpectedRows, even_batches
from pmc_jax.training.settings import updates_per_epoch
from pmc_jax.training.source import Round, Updates, mean_metric


class FinetuneSource:
    """The rows of fine-tuning: all of them once an epoch, in an order drawn from (seed, epoch). Nothing is kept.

    Args:
        rows: training rows.
        epochs: passes over them.
        batch_size: rows of an update.
        seed: of the order.
    """

    def __init__(self, rows: list[Row], epochs: int, batch_size: int, seed: int):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rounds, self.updates_per_epoch = epochs, updates_per_epoch(len(rows), 0, batch_size)

    def begin(self, notes: dict[str, Any] | None, clock: Clock) -> None:
        """Nothing is kept."""

    def notes(self, carry: None) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def expected_rows(self, carry: None) -> ExpectedRows:
        """The rows themselves."""
        return ExpectedRows((self.rows,), 1, self.batch_size)

    def round(self, number: int, carry: None, current: Callable[[], PretrainedModel], clock: Clock) -> Round:
        """An epoch."""
        return Round(self.batches(number, carry), None, {}, [])

    def batches(self, number: int, carry: None) -> list[list[Row]]:
        """The rows in the order of the epoch."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.rows))
        starts = range(0, len(order), self.batch_size)
        return [[self.rows[i] for i in order[start : start + self.batch_size]] for start in starts]

    def losses(self, updates: Updates) -> dict[str, Any]:
        """The mean loss, and the number of updates."""
        return {"loss": mean_metric(updates, "forget_loss"), "updates": len(updates)}


class ExampleRows(NamedTuple):
    """Training rows of supervised unlearning. A list is empty where the objective has no use for it."""

    forget: list[Row]
    retain: list[Row]


class SupervisedSource:
    """The rows of unlearning without sampling: forget rows with the answers of the data, retain rows, or both.

    What is kept between rounds are the rows' reference values, for objectives that need them.

    Args:
        rows: training rows of both groups.
        schedule: epochs over the forget questions. As in PMC, each question brings one retain row of its own.
        batch_size: examples of an update.
        reference: gives each row's reference value under the start parameters; None = no value is needed.
    """

    def __init__(
        self,
        rows: ExampleRows,
        schedule: Schedule,
        batch_size: int,
        reference: Callable[[list[Row]], list[float]] | None = None,
    ):
        self.rows, self.schedule, self.batch_size, self.reference = rows, schedule, batch_size, reference
        self.rounds = schedule.rounds
        self.updates_per_epoch = updates_per_epoch(schedule.questions, schedule.round_size, batch_size)

    def begin(self, notes: dict[str, Any] | None, clock: Clock) -> dict[str, list[float]]:
        """The reference values of each group, from the notes where a run goes on."""
        if self.reference is None:
            return {}
        if notes:
            carry = notes["reference"]
        else:
            with clock.phase("score"):
                carry = {group: self.reference(rows) for group, rows in self.rows._asdict().items()}
        self.reference = None  # it holds the start parameters
        referenced = {
            group: [row._replace(reference=value) for row, value in zip(getattr(self.rows, group), values, strict=True)]
            for group, values in carry.items()
        }
        self.rows = ExampleRows(**referenced)
        return carry

    def notes(self, carry: dict[str, list[float]]) -> dict[str, Any]:
        """The reference values as JSON."""
        return {"reference": carry} if carry else {}

    def expected_rows(self, carry: dict[str, list[float]]) -> ExpectedRows:
        """The rows themselves."""
        return ExpectedRows(tuple(rows for rows in self.rows if rows), 1, self.schedule.round_size)

    def round(
        self, number: int, carry: dict[str, list[float]], current: Callable[[], PretrainedModel], clock: Clock
    ) -> Round:
        """The examples of the round's questions."""
        epoch, _ = round_questions(self.schedule, number)
        return Round(self.batches(number, carry), carry, {"epoch": epoch}, [])

    def batches(self, number: int, carry: dict[str, list[float]]) -> list[list[Row]]:
        """The examples of the round's questions, in the order of the epoch."""
        epoch, questions = round_questions(self.schedule, number)
        groups = []
        if self.rows.forget:
            groups.append([self.rows.forget[q] for q in questions])
        if self.rows.retain:
            groups.append(draw_retain_rows(self.schedule.seed, epoch, questions, self.rows.retain))
        return even_batches(list(zip(*groups)), self.batch_size)

    def losses(self, updates: Updates) -> dict[str, float]:
        """Means over the round's updates."""
        losses = {"loss": True, "forget_loss": self.rows.forget, "retain_loss": self.rows.retain}
        return {name: mean_metric(updates, name) for name, present in losses.items() if present}
