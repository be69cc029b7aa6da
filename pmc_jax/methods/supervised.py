"""Sources whose answers are given: fine-tuning, and unlearning from the answers of the data. An epoch is a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.methods.schedule import RETAIN_ORDER, Schedule, draw_retain_rows, round_questions
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import ExpectedRows, even_batches, paired
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

    def rate(self, carry: None) -> float:
        """That of the schedule, in all epochs."""
        return 1.0

    def losses(self, updates: Updates) -> dict[str, Any]:
        """The mean loss, and the number of updates."""
        return {"loss": mean_metric(updates, "forget_loss"), "updates": len(updates)}

    def learnt(self, carry: None, line: dict[str, Any]) -> None:
        """Nothing."""


class ExampleRows(NamedTuple):
    """Training rows of supervised unlearning. A list is empty where the objective has no use for it.

    Attributes:
        forget: a row for each forget example.
        retain: rows that must stay.
        alternates: rows with other answers to forget questions, each once.
        alternate_of: [epochs, examples], the index of each example's alternate; None without alternates.
    """

    forget: list[Row]
    retain: list[Row]
    alternates: list[Row] = []  # noqa: RUF012  never changed
    alternate_of: np.ndarray | None = None


class MadeUp(NamedTuple):
    """Alternates that the start model makes up.

    Attributes:
        sample: () -> the texts, in the order of the examples.
        rows: their training rows.
    """

    sample: Callable[[], list[str]]
    rows: Callable[[list[str]], list[Row]]


class SupervisedSource:
    """The rows of unlearning without sampling: forget rows with the answers of the data, alternates, retain rows.

    What is kept between rounds are the rows' reference values, and the texts that were made up.

    Args:
        rows: training rows of all groups.
        schedule: epochs over the forget examples. As in PMC, each brings one retain row of its own.
        batch_size: examples of an update.
        reference: gives each row's reference value under the start parameters; None = no value is needed.
        made_up: makes the alternates, where the start model does; None = `rows` has them, or there are none.
    """

    def __init__(
        self,
        rows: ExampleRows,
        schedule: Schedule,
        batch_size: int,
        reference: Callable[[list[Row]], list[float]] | None = None,
        made_up: MadeUp | None = None,
    ):
        self.rows, self.schedule, self.batch_size = rows, schedule, batch_size
        self.reference, self.made_up = reference, made_up
        self.rounds = schedule.rounds
        self.updates_per_epoch = updates_per_epoch(schedule.questions, schedule.round_size, batch_size)

    def begin(self, notes: dict[str, Any] | None, clock: Clock) -> dict[str, Any]:
        """The reference values by group and the texts, from the notes where a run goes on."""
        carry = {name: notes[name] for name in ("reference", "made_up") if name in notes} if notes else {}
        if self.made_up:
            if not notes:
                with clock.phase("sample"):
                    carry["made_up"] = self.made_up.sample()
            self.rows = self.rows._replace(alternates=self.made_up.rows(carry["made_up"]))
        if self.reference and not notes:
            groups = {"forget": self.rows.forget, "alternates": self.rows.alternates}
            with clock.phase("score"):
                carry["reference"] = {group: self.reference(rows) for group, rows in groups.items() if rows}
        self.reference = self.made_up = None  # they hold the start parameters
        for group, values in carry.get("reference", {}).items():
            rows = [row._replace(reference=v) for row, v in zip(getattr(self.rows, group), values, strict=True)]
            self.rows = self.rows._replace(**{group: rows})
        return carry

    def notes(self, carry: dict[str, Any]) -> dict[str, Any]:
        """The carry is JSON already."""
        return carry

    def expected_rows(self, carry: dict[str, Any]) -> ExpectedRows:
        """The rows themselves."""
        groups = self.rows.forget, self.rows.alternates, self.rows.retain
        return ExpectedRows(tuple(rows for rows in groups if rows), 1, self.schedule.round_size, self.is_paired)

    def round(self, number: int, carry: dict[str, Any], current: Callable[[], PretrainedModel], clock: Clock) -> Round:
        """The examples of the round's questions."""
        epoch, _ = round_questions(self.schedule, number)
        return Round(self.batches(number, carry), carry, {"epoch": epoch}, [])

    def batches(self, number: int, carry: dict[str, Any]) -> list[list[Row]]:
        """The examples of the round's questions, in the order of the epoch."""
        epoch, questions = round_questions(self.schedule, number)
        rows, groups = self.rows, []
        if rows.forget:
            groups.append([rows.forget[q] for q in questions])
        if rows.alternates:
            groups.append([rows.alternates[rows.alternate_of[epoch, q]] for q in questions])
        if rows.retain:
            groups.append(draw_retain_rows(self.schedule.seed, epoch, questions, rows.retain))
        examples = list(zip(*groups))
        return even_batches(paired(examples) if self.is_paired else examples, self.batch_size)

    def rate(self, carry: dict[str, Any]) -> float:
        """That of the schedule, in all epochs."""
        return 1.0

    def losses(self, updates: Updates) -> dict[str, float]:
        """Means over the round's updates."""
        rows = self.rows
        losses = {"loss": True, "forget_loss": rows.forget, "refusal_loss": rows.alternates, "retain_loss": rows.retain}
        return {name: mean_metric(updates, name) for name, present in losses.items() if present}

    def learnt(self, carry: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
        """The same as before."""
        return carry

    @property
    def is_paired(self) -> bool:
        """Whether an example is a forget row and its alternate."""
        return bool(self.rows.forget and self.rows.alternates)


class TurnsSource(SupervisedSource):
    """Rows in turns: a pass over the forget rows, in the first epochs, and then one over all retain rows.

    Args:
        rows: of both groups.
        schedule: epochs.
        batch_size: rows of an update.
        forget_epochs: epochs that begin with the forget rows.
    """

    def __init__(self, rows: ExampleRows, schedule: Schedule, batch_size: int, forget_epochs: int):
        super().__init__(rows, schedule, batch_size)
        self.forget_epochs = min(forget_epochs, schedule.epochs)
        forget, retain = (-(-len(part) // batch_size) for part in (rows.forget, rows.retain))
        self.updates_per_epoch = -(-(self.forget_epochs * forget + schedule.epochs * retain) // schedule.epochs)

    def expected_rows(self, carry: dict[str, Any]) -> ExpectedRows:
        """The rows of both groups: a batch holds either."""
        return ExpectedRows(([*self.rows.forget, *self.rows.retain],), 1, self.batch_size)

    def batches(self, number: int, carry: dict[str, Any]) -> list[list[Row]]:
        """The batches of both passes, each in an order drawn from (seed, epoch)."""
        epoch, questions = round_questions(self.schedule, number)
        rows = [self.rows.forget[q] for q in questions] if epoch < self.forget_epochs else []
        order = np.random.default_rng([RETAIN_ORDER, self.schedule.seed, epoch]).permutation(len(self.rows.retain))
        passes = rows, [self.rows.retain[i] for i in order]
        size = self.batch_size
        return [part[start : start + size] for part in passes for start in range(0, len(part), size)]

    def losses(self, updates: Updates) -> dict[str, float]:
        """Means over the updates that have rows of a group: the others' loss of it is 0."""
        losses = {}
        for name in ("loss", "forget_loss", "retain_loss"):
            present = [update for update in updates if update[name]]
            losses |= {name: mean_metric(present, name)} if present else {}
        return losses
