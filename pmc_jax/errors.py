"""The one exception for mistakes of the user, and the first line of any other."""


class UserError(ValueError):
    """A mistake the user can mend: one line that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2; callers of the Python surface get it raised.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
