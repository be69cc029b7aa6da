"""The one exception for mistakes of the user, what its one line is made of, and what to do about errors of files."""

import contextlib
import errno
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

LIMIT = 300  # characters of a UserError
OUT_OF_MEMORY = (
    "out of memory: train.remat, train.accumulate, train.optimizer=adafactor, lora.rank, sample.max_rows or a larger "
    "mesh take less on each device (docs/howto.md, Less memory)"
)
ROOM = "make room, then give the same command again"
RIGHTS = "it must be yours to write, or choose another place"
# What helps against the ways in which files fail.
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "the size of files is limited here: see ulimit -f",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "raise the limit of open files of this machine",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "a file, or a link that leads nowhere, stands there; choose another place",
    errno.ENOENT: "there is no such folder; choose another place",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.EISDIR: "a folder stands where a file is needed; choose another place",
    errno.EIO: "check the disk, then give the same command again",
    errno.ESTALE: "mount the file system again, then give the same command again",
}


class UserError(ValueError):
    """A mistake the user can mend: one line that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2; callers of the Python surface get it raised.
    Whatever the message is made of, it becomes one line of at most 300 characters: paths, rows and other programs'
    errors in it may hold anything.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str, limit: int = LIMIT) -> str:
    """The text as one printable line; too long a one is cut in its middle, since its end says what to do."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    end = limit // 3
    return line if len(line) <= limit else f"{line[: limit - end - 5]} ... {line[-end:]}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def few(names: Iterable[object], count: int = 4) -> str:
    """The first few names, joined by commas, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - count} more" if len(every) > count else ""
    return ", ".join(every[:count]) + more


def file_error(error: OSError, file: str | Path = "") -> UserError:
    """What to tell the user of a file that could not be read or written.

    Args:
        error: of the file.
        file: which one it is, where the error does not know; it names the file that it knows.
    """
    file, reason = error.filename or file, error.strerror or first_line(error)
    remedy = REMEDIES.get(error.errno)
    return UserError(f"{file}: {reason}" + (f"; {remedy}" if remedy else "")) if file else UserError(reason)


@contextlib.contextmanager
def telling_file_errors(file: str | Path) -> Iterator[None]:
    """Errors of files inside come out as UserErrors. file: named where an error names none."""
    try:
        yield
    except OSError as error:
        raise file_error(error, file) from None


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the line that a command ends with: 2 for what the user can mend, 1 for a fault of the program,
    whose traceback goes into a file.
    """
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return 2, OUT_OF_MEMORY
    if isinstance(error, OSError):
        return 2, str(file_error(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="pmc_jax_", suffix=".txt", delete=False) as out:
            traceback.print_exception(error, file=out)
        kept = f"its traceback is in {out.name}"
    except OSError:
        kept = "its traceback could not be written"
    return 1, one_line(f"a fault of pmc-jax: {type(error).__name__}: {first_line(error)[:120]}; {kept}")
