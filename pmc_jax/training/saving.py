"""Which rounds are saved: every so many of them, and whenever so many minutes have passed since the last one."""

import dataclasses
import time
from typing import Any

import jax

from pmc_jax.distributed import multihost

LEFT_OPEN = -1
QUICKLY_SAVED = 2**30  # bytes of a round that is written in seconds (docs/decisions.md)


@dataclasses.dataclass
class SaveTimes:
    """When a run saves its rounds. The last round, one that is interrupted and one that is good enough to go back to
    are saved besides.

    Attributes:
        every: rounds from one that is saved to the next; 0 = their number saves none.
        minutes: as many after the last saved round, the next one is saved too; 0 = time saves none.
        last: monotonic seconds of the last save, or of the start.
    """

    every: int
    minutes: float
    last: float = dataclasses.field(default_factory=lambda: time.monotonic())

    def is_due(self, number: int) -> bool:
        """Whether round `number` is to be saved. The first process's clock decides for all; all must ask."""
        if is_due(number, self.every):
            return True
        if not self.minutes:
            return False
        return multihost.broadcast_from_primary(lambda: time.monotonic() - self.last >= 60 * self.minutes)

    def saved(self) -> None:
        """A round was saved just now."""
        self.last = time.monotonic()


def save_times(every: int, minutes: float, state: Any) -> SaveTimes:
    """The times of a run. Where the number is left open: each round that is quickly saved, others by time alone.

    Args:
        every: rounds, or `LEFT_OPEN`.
        minutes: as in `SaveTimes`.
        state: what a round holds, a tree of arrays.
    """
    if every == LEFT_OPEN:
        every = int(sum(x.nbytes for x in jax.tree.leaves(state)) <= QUICKLY_SAVED)
    return SaveTimes(every, minutes)


def is_due(number: int, every: int) -> bool:
    """Whether what happens every so many rounds happens after round `number`; 0 = never."""
    return bool(every) and (number + 1) % every == 0
