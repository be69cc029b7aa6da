"""What threads of libraries print beside the errors that they raise is no news to a user.

Where a disk is full, Orbax logs the traceback of each thread that writes, and tensorstore prints others from threads
that Python did not start. The same error is raised to whoever waits for the round, and told in one line.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

FOREIGN = "Dummy-"  # how Python names a thread that it did not start


class OwnThreads:
    """A text stream that drops what threads write that Python did not start."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith(FOREIGN):
            return len(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def not_orbax(record: logging.LogRecord) -> bool:
    """Whether a record comes from elsewhere."""
    return "/orbax/" not in record.pathname.replace("\\", "/")


@contextlib.contextmanager
def hushed_libraries() -> Iterator[None]:
    """Orbax logs nothing inside, and what foreign threads write on stderr is dropped."""
    logger, stream = logging.getLogger("absl"), sys.stderr
    logger.addFilter(not_orbax)
    sys.stderr = OwnThreads(stream)
    try:
        yield
    finally:
        logger.removeFilter(not_orbax)
        sys.stderr = stream
