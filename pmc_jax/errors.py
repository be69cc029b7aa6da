"""The one exception for mistakes of the user, and what its one line is made of."""

from collections.abc import Iterable

LIMIT = 300  # characters of a UserError


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
