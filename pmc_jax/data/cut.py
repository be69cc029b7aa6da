"""A data set cut in two: what is to be forgotten, and the rest."""

import numpy as np

from pmc_jax.data.parse import Rows
from pmc_jax.errors import UserError


def cut(rows: Rows, how: str) -> tuple[Rows, Rows]:
    """Forget and retain rows of one set, each in its order.

    Args:
        rows: of the whole set.
        how: the setting `data.cut`: "last:10" = the last 10 % are to be forgotten, as TOFU's forget sets are whole
            authors from the end; "spread:10" = 10 % in equal steps over the set, so that both sides share authors.

    Raises:
        UserError: one side would have no rows.
    """
    kind, _, percent = how.partition(":")
    count = round(len(rows) * float(percent) / 100)
    if not 0 < count < len(rows):
        raise UserError(f"data.cut={how!r}: of {len(rows)} rows one side would have none; take another share")
    start = len(rows) - count
    chosen = set(range(start, len(rows)))
    if kind == "spread":
        chosen = set(np.linspace(0, len(rows) - 1, count).round().astype(int).tolist())
    sides: tuple[Rows, Rows] = ([], [])
    for i, row in enumerate(rows):
        sides[i not in chosen].append(row)
    return sides
