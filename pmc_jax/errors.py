"""The one exception for mistakes of the user."""


class UserError(ValueError):
    """A mistake the user can mend: one line that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2; callers of the Python surface get it raised.
    """
