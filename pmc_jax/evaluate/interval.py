"""Bootstrap intervals, on numpy alone: a run's start and the report need no more.

Every interval is the percentile bootstrap over rows (Efron, "Bootstrap Methods", 1979): rows are drawn anew with
replacement, as many as there are, R times, and the middle 95 % of what they give is the interval. Draws follow from the
seed and the number of rows: two columns of the same rows are drawn together by the same seed, separate sets apart by
different ones.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        mean: None without rows.
        low: lower bound; None where there are too few rows.
        high: upper bound; None where there are too few rows.
        rows: number of rows.
    """

    mean: float | None
    low: float | None
    high: float | None
    rows: int


def draws(rows: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Which rows each resample holds, int [R, N]."""
    return np.random.default_rng(seed).integers(rows, size=(resamples, rows))


def resampled_means(values_N: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """The mean of each resample, float64 [R]."""
    values_N = np.asarray(values_N, np.float64)
    return values_N[draws(len(values_N), seed, resamples)].mean(axis=1)


def middle(statistics_R: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of what the resamples gave."""
    low, high = np.quantile(statistics_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_with_interval(
    values_N: ArrayLike, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Mean of the rows with its interval, the same for the same seed.

    Args:
        values_N: a value of each row; NaN rows are left out and not counted.
        seed: of the resamples.
        resamples: how many are drawn.
        level: share of the resamples' means that the interval holds.

    Returns:
        No rows: no mean. One row: its value, without an interval, since one row says nothing about the spread.
    """
    values_N = np.asarray(values_N, np.float64).ravel()
    values_N = values_N[~np.isnan(values_N)]
    if not values_N.size:
        return Interval(None, None, None, 0)
    mean = float(np.mean(values_N))
    if values_N.size == 1:
        return Interval(mean, None, None, 1)
    return Interval(mean, *middle(resampled_means(values_N, seed, resamples), level), values_N.size)
