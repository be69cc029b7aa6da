"""The format of open-unlearning's TOFU evaluation logs: its metrics, and logs read and checked.

A log is {metric: {"agg_value": float or null, "value_by_index": {"0": {key: value}, ...}}}. Membership attacks hold one
such object for "forget" and one for "holdout" and their "auc"; model_utility, forget_quality and privleak have no rows
of their own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pmc_jax.errors import UserError
from pmc_jax.evaluate import metrics
from pmc_jax.evaluate.log_rows import RATIOS, SETS

UTILITY = tuple(
    f"{s}_{part}"
    for s in SETS[1:]
    for part in ("Q_A_Prob" if s == "retain" else "Q_A_Prob_normalised", "Q_A_ROUGE", "Truth_Ratio")
)
# metric -> key of its rows, mean over rows
RULES: dict[str, tuple[str, Callable]] = {
    "exact_memorization": ("score", np.mean),
    "extraction_strength": ("score", np.mean),
    **{
        f"{s}_Q_A_{kind}": ("prob", np.mean)
        for s in SETS
        for kind in ("Prob", "PARA_Prob", "PERT_Prob", "Prob_normalised")
    },
    **{f"{s}_Q_A_ROUGE": ("rougeL_recall", np.mean) for s in SETS},
    **{
        name: ("score", metrics.forget_truth_ratio if s == "forget" else metrics.utility_truth_ratio)
        for s, name in RATIOS.items()
    },
}
ATTACKS = tuple(f"mia_{name}" for name in ("gradnorm", "loss", "min_k", "min_k_plus_plus", "reference", "zlib"))
SIDES = ("forget", "holdout")
DERIVED = ("forget_quality", "model_utility", "privleak")


def read_log(file: str | Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read and check a log.

    Args:
        file: a JSON file.
        needs: metrics that must be in it.

    Raises:
        UserError: it names the file and what is missing.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file}: no such file; a TOFU evaluation log (JSON) is needed")
    try:
        log = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not a JSON file, or cut short: {error}") from None
    check_log(log, str(file))
    missing = [name for name in needs if name not in log]
    if missing:
        raise UserError(f"{file}: the log lacks {', '.join(missing)}")
    return log


def check_log(log: Any, title: str) -> None:
    """UserError that begins with `title` unless this is a TOFU evaluation log whose rows hold what its metrics need."""
    if not isinstance(log, dict) or not any(name in RULES or name in ATTACKS or name in DERIVED for name in log):
        raise UserError(f"{title}: not a TOFU evaluation log: it has no metric of one, such as forget_truth_ratio")
    for name, entry in log.items():
        if name in DERIVED and not isinstance(entry, dict):
            raise UserError(
                f"{title}: {name} is no object with agg_value; a summary? the log with values of every row is needed"
            )
        if name in RULES:
            check_rows(entry, RULES[name][0], f"{title}: {name}")
        if name in ATTACKS:
            for side in SIDES:
                check_rows(entry.get(side) if isinstance(entry, dict) else None, "score", f"{title}: {name}.{side}")


def check_rows(entry: Any, key: str, title: str) -> None:
    """UserError unless the entry has rows, each a number or numbers (null where undefined) under `key`."""
    rows = entry.get("value_by_index") if isinstance(entry, dict) else None
    if not isinstance(rows, dict):
        raise UserError(f"{title} has no value_by_index, the values of every row")
    for index, row in rows.items():
        if row is not None and (not isinstance(row, dict) or key not in row):
            raise UserError(f"{title}: row {index} has no {key}")
        values = row[key] if row is not None else None
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not isinstance(value, (int, float)):
                raise UserError(f"{title}: row {index}: {key} is {type(value).__name__}, not a number")


def row_values(entry: dict[str, Any], key: str) -> np.ndarray:
    """Each row's value, the mean where it has several, float64 [rows]; rows that hold null are left out."""
    values = [np.ravel(row[key]) for row in entry["value_by_index"].values() if row is not None]
    return np.array(
        [np.mean(v.astype(np.float64)) for v in values if v.size and not any(x is None for x in v)], np.float64
    )
