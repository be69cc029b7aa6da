"""Rows that say what they are about, as RWKU's do."""

from pmc_jax.data.parse import Rows
from pmc_jax.errors import UserError, few

COLUMN = "subject"


def of_subject(rows: Rows, subject: str, source: str) -> Rows:
    """The rows about a subject; all where none is named, or where no row names one.

    Args:
        rows: as read.
        subject: the setting data.subject.
        source: what they were read from, for the message.

    Raises:
        UserError: none is about it; the message names some subjects.
    """
    if not subject or not any(COLUMN in row for row in rows):
        return rows
    own = [row for row in rows if str(row.get(COLUMN, "")).casefold() == subject.casefold()]
    if not own:
        there = dict.fromkeys(str(row.get(COLUMN)) for row in rows)
        raise UserError(f"data.subject={subject!r}: {source} has no row about it; its subjects: {few(there, 6)}")
    return own
