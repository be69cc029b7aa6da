"""SIGTERM, as machines send it that are about to be taken away: what can be saved is saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM


class Stopped(BaseException):
    """The process was told to end (SIGTERM). No Exception, as KeyboardInterrupt is none: nothing may swallow it."""


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """A handler of SIGTERM that ends the process in order."""
    raise Stopped


class Patience:
    """Whether the process was told to end while it could not.

    Attributes:
        wanted: it was.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._depth = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, a signal is only noted; after it, what was noted counts."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A handler of SIGTERM."""
        self.wanted = True
        if not self._depth:
            raise Stopped


@contextlib.contextmanager
def patience() -> Iterator[Patience]:
    """Holds SIGTERM back where the program says so, in place of the command line's own handler.

    Elsewhere, as in a program that has a handler of its own, nothing changes.
    """
    patient = Patience()
    mine = threading.current_thread() is threading.main_thread()
    if not (mine and signal.getsignal(signal.SIGTERM) is raise_stopped):
        yield patient
        return
    signal.signal(signal.SIGTERM, patient.handle)
    try:
        yield patient
    finally:
        signal.signal(signal.SIGTERM, raise_stopped)
