"""Which grid point is shown of a method, and which points no other one beats."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A number over seeds.

    Attributes:
        mean: of the seeds that have it; None where none has.
        std: standard deviation between seeds, of n - 1; None for fewer than two.
        values: of each seed, in their order; None where a seed has none.
    """

    mean: float | None
    std: float | None
    values: list[float | None]


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and standard deviation of what is known."""
    known = [value for value in values if value is not None]
    std = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Spread(float(np.mean(known)) if known else None, std, list(values))


class Tried(NamedTuple):
    """A grid point: its means over the seeds that points are chosen by."""

    point: int
    unlearn_quality: float
    utility: float


def choose(tried: Sequence[Tried], least: float) -> tuple[int, bool]:
    """The point with the best unlearn quality among those that keep the utility.

    Args:
        tried: the grid points, one at least; of equally good ones the first is taken.
        least: the utility that is to be kept.

    Returns:
        (point, True); where none keeps it the one with the best utility, and False.
    """
    keeping = [one for one in tried if one.utility >= least]
    if keeping:
        return max(keeping, key=lambda one: one.unlearn_quality).point, True
    return max(tried, key=lambda one: one.utility).point, False


def pareto_front(points_N2: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other one beats: as high in both numbers, and higher in one.

    Args:
        points_N2: two numbers each, higher is better.

    Returns:
        By the first number, from the highest on; of equal points all.
    """
    points = np.asarray(points_N2, np.float64).reshape(-1, 2)
    order = sorted(range(len(points)), key=lambda i: (-points[i, 0], -points[i, 1]))
    front: list[int] = []
    for i in order:
        if not front or points[i, 1] > points[front[-1], 1] or tuple(points[i]) == tuple(points[front[-1]]):
            front.append(i)
    return front


def rule(floor: float, tuning: int, seeds: int) -> str:
    """The choice rule, as it stands beside the table.

    Args:
        floor: percent of the start's utility.
        tuning: seeds that points are chosen by.
        seeds: all of them.
    """
    by = f"the mean over {seeds} seeds" if tuning == seeds else f"the mean over the first {tuning} of {seeds} seeds"
    by = by if tuning > 1 else "its only seed" if seeds == 1 else f"the first of {seeds} seeds"
    return (
        f"Chosen is the grid point with the best unlearn quality among those whose utility is at least {floor:g} % of "
        f"the start's, by {by}. Where no point keeps that (marked !), the one with the best utility is shown."
    )
