"""A TOFU log -> what result.json says of it: every aggregate with its rows, its interval, or why it is missing."""

from typing import Any

import numpy as np

from pmc_jax.evaluate import log_format, logs, membership, metrics
from pmc_jax.evaluate.interval import mean_with_interval, middle, resampled_means


def summarise(log: dict[str, Any], retain_log: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Every aggregate of a log.

    Returns:
        {metric: {"value", "rows"}}, with "interval" (bootstrap 95 %) where rows can be drawn anew, with "reason" where
        it is not computed, and with "note" where there is something to know.
    """
    recomputed = logs.recompute(log, retain_log)
    summary: dict[str, dict[str, Any]] = {}
    for name, value in recomputed.values.items():
        summary[name] = {"value": value, "rows": recomputed.rows[name]}
        if name in recomputed.notes:
            summary[name]["note"] = recomputed.notes[name]
        if name in recomputed.reasons:
            summary[name]["reason"] = recomputed.reasons[name]
        elif (span := interval(name, log)) is not None:
            summary[name]["interval"] = span
    return summary


def interval(name: str, log: dict[str, Any]) -> tuple[float, float] | None:
    """The interval of an aggregate that is computed; None for those that are a test of two logs, or have one row."""
    if name in log_format.RULES:
        _, low, high, _ = mean_with_interval(row_parts(name, log))
        return None if low is None else (low, high)
    if name in log_format.ATTACKS:
        return membership.auc_interval(*(log_format.row_values(log[name][side], "score") for side in log_format.SIDES))
    if name == "model_utility":
        nine = [row_parts(part, log) for part in log_format.UTILITY]
        # The three measures of a set are of the same rows, which are drawn together: one seed a set.
        means_9R = [resampled_means(parts, seed=i // 3) for i, parts in enumerate(nine)]
        return middle(np.array([metrics.model_utility(nine_means) for nine_means in zip(*means_9R)]))
    return None


def row_parts(name: str, log: dict[str, Any]) -> np.ndarray:
    """What each row adds to the aggregate, [N]: aggregates by RULES are means of a function of single rows."""
    key, mean = log_format.RULES[name]
    return np.array([mean(np.array([value])) for value in log_format.row_values(log[name], key)])
