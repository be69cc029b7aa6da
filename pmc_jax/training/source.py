"""What the training loop asks of a method: the rows of each round, from the parameters of that moment."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import ExpectedRows

Carry = Any  # what a source carries from round to round, as in `jax.lax.scan`; the loop only passes it on
Updates = list[dict[str, float]]  # the metrics of each update


class Round(NamedTuple):
    """What a source gives for one round.

    Attributes:
        batches: the training rows of each update.
        carry: what the source carries to the next round.
        record: what the round's line in the history says beside losses and seconds; JSON-ready.
        seen: what was sampled, one dict a question; JSON-ready. Empty where nothing is sampled.
    """

    batches: list[list[Row]]
    carry: Carry
    record: dict[str, Any]
    seen: list[dict[str, Any]]


class Source(Protocol):
    """A method of training, such as PMC or fine-tuning, without its loop.

    Attributes:
        rounds: how many rounds a whole run has at most.
        updates_per_epoch: how many updates an epoch has; the learning rate follows it.
    """

    rounds: int
    updates_per_epoch: int

    def begin(self, notes: dict[str, Any] | None, clock: Clock) -> Carry:
        """What is carried into the next round: made fresh (None), or from the notes of the last saved round."""

    def notes(self, carry: Carry) -> dict[str, Any]:
        """The carry, JSON-ready. Written while the next round runs, so nothing may change it."""

    def expected_rows(self, carry: Carry) -> ExpectedRows:
        """Rows like those to come. The packing is planned on them."""

    def round(self, number: int, carry: Carry, current: Callable[[], PretrainedModel], clock: Clock) -> Round:
        """The rows of round `number`. `current()` is the model at the parameters of this moment, to sample from."""

    def batches(self, number: int, carry: Carry) -> list[list[Row]]:
        """The training rows of each update of round `number` once more, from what was carried out of it."""

    def rate(self, carry: Carry) -> float:
        """The share of the schedule's learning rate for the round that this is carried into; 0 = the run ends before
        it, although `rounds` are more.
        """

    def losses(self, updates: Updates) -> dict[str, Any]:
        """What the round's line in the history says of its updates."""

    def learnt(self, carry: Carry, line: dict[str, Any]) -> Carry:
        """What is carried out of a round whose updates are made. line: of the round in the history, losses included."""


def mean_metric(updates: Updates, name: str) -> float:
    """The mean of a metric over a round's updates."""
    return float(np.mean([update[name] for update in updates]))
