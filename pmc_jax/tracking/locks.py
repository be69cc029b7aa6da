"""Locks that end with their process, however it ends."""

import os
import sys
from pathlib import Path

from pmc_jax.errors import telling_file_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock:
    """A file that one process at a time holds.

    A file system without locks cannot keep others out; that is said, and the lock counts as held.
    """

    def __init__(self, file: Path):
        self.file, self._open = file, -1

    def hold(self) -> bool:
        """Whether it is held now; False while another process has it."""
        if self._open >= 0:
            return True
        with telling_file_errors(self.file):
            opened = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(opened)
        except BlockingIOError:
            os.close(opened)
            return False
        except OSError as error:
            print(
                f"pmc-jax: {self.file.parent}: this file system has no locks ({error.strerror}); see to it that only "
                "one process runs in this folder",
                file=sys.stderr,
            )
        self._open = opened
        return True

    def _lock(self, opened: int) -> None:
        if fcntl is None:
            raise OSError(0, "not on this system")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except PermissionError:  # what some file systems call a lock that another process has
            raise BlockingIOError from None

    def release(self) -> None:
        """Let others in."""
        if self._open >= 0:
            os.close(self._open)
            self._open = -1
