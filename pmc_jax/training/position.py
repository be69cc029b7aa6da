"""How far a run is, and what is called on its way."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.source import Updates
from pmc_jax.training.watch import UNSEEN, Watch


class Hooks(NamedTuple):
    """What is called on the way.

    Attributes:
        on_start: gets the number of the first round that is to be run.
        on_round: gets the round's line of the history, what was sampled, and the metrics of its updates. A round is
            told before it is saved: lines of a round that a kill left unsaved are dropped on resume.
        on_evaluate: gets the number of the round and the model as it is then, every `evaluate_every` rounds but the
            last, and with `keep_best` after the last one. True = this is the round to go back to, where the run does;
            False = go back there now, and end; None = neither. Where layers run in a loop, on a TPU, this model has
            them stacked (models/layer_stack.py): it can be asked and measured, but not exported.
        watch: looks on.
    """

    on_start: Callable[[int], None] | None = None
    on_round: Callable[[dict[str, Any], list[dict[str, Any]], Updates], None] | None = None
    on_evaluate: Callable[[int, PretrainedModel], bool | None] | None = None
    watch: Watch = UNSEEN


NO_HOOKS = Hooks()


@dataclasses.dataclass
class Position:
    """How far a run is.

    Attributes:
        history: one dict a round.
        good: the round to go back to; None = there is none.
        part: the round that was interrupted: its record, what it saw, its share of the learning rate, and the metrics
            of its updates so far.
    """

    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    good: int | None = None
    part: dict[str, Any] | None = None

    @classmethod
    def of(cls, notes: dict[str, Any] | None) -> "Position":
        """The position that the notes of a saved round tell of; the beginning without any."""
        notes = notes or {}
        return cls(notes.get("history", []), notes.get("good"), notes.get("part"))

    def notes(self, clock: Clock) -> dict[str, Any]:
        """The same as JSON. Copies: the notes are written while the next round adds to both."""
        told = {"history": list(self.history), "seconds": dict(clock.seconds), "good": self.good}
        return told | ({"part": self.part} if self.part else {})
