"""What looks on while a run works: it is told what was done in which time, and changes nothing."""

import contextlib
from typing import NamedTuple


class Worked(NamedTuple):
    """What one start of a run did in a round. Compiling takes no part of the seconds.

    Attributes:
        positions: tokens of the training rows, without padding; the prefix that all share counts once an update.
        labels: of these, the answers' tokens.
        update_seconds: of the updates.
        sampled_tokens: tokens of the sampled answers; None where nothing was sampled.
        sample_seconds: of sampling them.
    """

    positions: int = 0
    labels: int = 0
    update_seconds: float = 0.0
    sampled_tokens: int | None = None
    sample_seconds: float = 0.0


class Watch:
    """Looks on, and does nothing itself."""

    def around(self, number: int) -> contextlib.AbstractContextManager:
        """Entered before round `number`, and left after it is saved."""
        return contextlib.nullcontext()

    def worked(self, number: int, worked: Worked) -> None:
        """Told before the round's line of the history is."""


UNSEEN = Watch()
