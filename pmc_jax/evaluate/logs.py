"""TOFU evaluation logs in open-unlearning's format: read, recomputed from their rows, written.

A log is {metric: {"agg_value": float or null, "value_by_index": {"0": {key: value}, ...}}}. Membership attacks hold one
such object for "forget" and one for "holdout" and their "auc"; model_utility, forget_quality and privleak have no rows
of their own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError
from pmc_jax.evaluate import membership, metrics
from pmc_jax.evaluate.log_rows import RATIOS, SETS, derived_rows, indexed, score_rows
from pmc_jax.tracking.workdir import write_json

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
HALF = 0.5  # the AUC of an attack that cannot tell
DERIVED = ("forget_quality", "model_utility", "privleak")


class Found(NamedTuple):
    """One aggregate: its value on `rows` rows, or None and the reason. note: what must be known to read the value."""

    value: float | None
    rows: int = 0
    reason: str | None = None
    note: str | None = None


class Recomputed(NamedTuple):
    """values: aggregate by the log's names, attacks also as mia_x/forget and mia_x/holdout. rows: on how many rows.
    reasons: why a value is None.
    notes: what must be known to read a value."""

    values: dict[str, float | None]
    rows: dict[str, int]
    reasons: dict[str, str]
    notes: dict[str, str]


# Reading


def read_log(file: str | Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The log in a JSON file. needs: metrics that must be in it. UserError that names the file and what is missing."""
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


def check_log(log: Any, where: str) -> None:
    """UserError that begins with `where` unless `log` is a TOFU evaluation log whose rows hold what its metrics
    need.
    """
    if not isinstance(log, dict) or not any(name in RULES or name in ATTACKS or name in DERIVED for name in log):
        raise UserError(f"{where}: not a TOFU evaluation log: it has no metric of one, such as forget_truth_ratio")
    for name, entry in log.items():
        if name in DERIVED and not isinstance(entry, dict):
            raise UserError(
                f"{where}: {name} is no object with agg_value; a summary? the log with values of every row is needed"
            )
        if name in RULES:
            check_rows(entry, RULES[name][0], f"{where}: {name}")
        if name in ATTACKS:
            for side in SIDES:
                check_rows(entry.get(side) if isinstance(entry, dict) else None, "score", f"{where}: {name}.{side}")


def check_rows(entry: Any, key: str, where: str) -> None:
    """UserError unless the entry has rows, each a number or numbers (null where undefined) under `key`."""
    rows = entry.get("value_by_index") if isinstance(entry, dict) else None
    if not isinstance(rows, dict):
        raise UserError(f"{where} has no value_by_index, the values of every row")
    for index, row in rows.items():
        if row is not None and (not isinstance(row, dict) or key not in row):
            raise UserError(f"{where}: row {index} has no {key}")
        values = row[key] if row is not None else None
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not isinstance(value, (int, float)):
                raise UserError(f"{where}: row {index}: {key} is {type(value).__name__}, not a number")


def row_values(entry: dict[str, Any], key: str) -> np.ndarray:
    """float64 [rows]: each row's value, the mean where it has several; rows that hold null are left out."""
    values = [np.ravel(row[key]) for row in entry["value_by_index"].values() if row is not None]
    return np.array(
        [np.mean(v.astype(np.float64)) for v in values if v.size and not any(x is None for x in v)], np.float64
    )


# Recomputing


def aggregates(log: dict[str, Any], retain_log: dict[str, Any] | None = None) -> dict[str, float | None]:
    """Every metric of the log, recomputed from its rows; None where it cannot be: `recompute` also says why and on how
    many rows.
    """
    return recompute(log, retain_log).values


def recompute(log: dict[str, Any], retain_log: dict[str, Any] | None = None) -> Recomputed:
    """Every aggregate of the log from its rows, under the log's names.

    retain_log: the log of a model that never saw the forget set, on the same forget rows; forget_quality and privleak
    are not computed without it, but see `privacy_leak`. UserError where either is no log.
    """
    check_log(log, "the log")
    if retain_log is not None:
        check_log(retain_log, "the retain log")
    found = {}
    for name, entry in log.items():
        if name in RULES:
            key, mean = RULES[name]
            found[name] = over_rows(row_values(entry, key), mean)
        elif name in ATTACKS:
            found |= attack(name, entry)
        elif name not in DERIVED:
            found[name] = Found(None, 0, "not one of TOFU's metrics: no rule to recompute it")
    if "model_utility" in log:
        found["model_utility"] = model_utility(found)
    if "forget_quality" in log:
        found["forget_quality"] = forget_quality(log, retain_log)
    if "privleak" in log:
        found["privleak"] = privacy_leak(log, retain_log)
    found = {name: found[name] for name in sorted(found)}
    return Recomputed(
        {name: f.value for name, f in found.items()},
        {name: f.rows for name, f in found.items()},
        {name: f.reason for name, f in found.items() if f.reason},
        {name: f.note for name, f in found.items() if f.note},
    )


def over_rows(values_N: np.ndarray, mean: Callable) -> Found:
    """`mean` of the rows; not computed without rows, nor where a row is no finite number (a model that diverged)."""
    broken = int((~np.isfinite(values_N)).sum())
    if not values_N.size or broken:
        return Found(
            None, 0, f"{broken} of {values_N.size} rows are not finite numbers" if broken else "no row has a value"
        )
    return Found(float(mean(values_N)), values_N.size)


def attack(name: str, entry: dict[str, Any]) -> dict[str, Found]:
    """The attack's AUC under its name, and the mean score of either side."""
    sides = {side: row_values(entry[side], "score") for side in SIDES}
    found = {f"{name}/{side}": over_rows(values, np.mean) for side, values in sides.items()}
    reason = next((f"{at}: {f.reason}" for at, f in found.items() if f.reason), None)
    whole = (
        Found(None, 0, reason)
        if reason
        else Found(membership.auc(*sides.values()), sum(v.size for v in sides.values()))
    )
    return {name: whole, **found}


def model_utility(found: dict[str, Found]) -> Found:
    """The harmonic mean of the nine; rows: those of the three sets together."""
    missing = [name for name in UTILITY if name not in found or found[name].value is None]
    if missing:
        return Found(None, 0, f"needs {', '.join(missing)}")
    return Found(
        metrics.model_utility([found[name].value for name in UTILITY]), sum(found[name].rows for name in UTILITY[::3])
    )


def unfit(log: dict[str, Any], retain_log: dict[str, Any] | None, needed: str) -> str | None:
    """Why the two logs cannot be compared by the metric `needed`; None where they can. Logs of other forget rows would
    give a wrong number.
    """
    if retain_log is None:
        return metrics.NO_RETAIN
    for whose, one in (("the log", log), ("the retain log", retain_log)):
        if needed not in one:
            return f"{whose} has no {needed}"
    ours, theirs = (one[needed].get("forget", one[needed])["value_by_index"] for one in (log, retain_log))
    if len(ours) != len(theirs):
        return f"the retain log is of another forget set: {len(theirs)} rows, not {len(ours)}"
    ours, theirs = (
        [(r or {}).get("ground_truth") for r in one.get("forget_Q_A_ROUGE", {}).get("value_by_index", {}).values()]
        for one in (log, retain_log)
    )
    if ours and theirs and ours != theirs:
        return "the retain log is of another forget set: its forget_Q_A_ROUGE has other ground truths"
    return None


def forget_quality(log: dict[str, Any], retain_log: dict[str, Any] | None) -> Found:
    """p of the KS test between the truth ratios of the two logs."""
    name = RATIOS["forget"]
    reason = unfit(log, retain_log, name)
    if reason:
        return Found(None, 0, reason)
    ours, theirs = (row_values(one[name], "score") for one in (log, retain_log))
    quality = metrics.forget_quality(ours, theirs)
    if quality.reason:
        return Found(None, 0, quality.reason)
    return Found(
        quality.p,
        ours.size,
        None,
        f"p; log10 p {quality.log10_p:.2f}, Kolmogorov-Smirnov distance D {quality.distance:.4f}",
    )


def without_reference(log: dict[str, Any]) -> bool:
    """Whether the log itself states a privacy leak that was made without a retain model: it states one, and no forget
    quality.
    """
    return log["privleak"].get("agg_value") is not None and log.get("forget_quality", {}).get("agg_value") is None


def privacy_leak(log: dict[str, Any], retain_log: dict[str, Any] | None) -> Found:
    """From the AUCs of min-k in the two logs. Of a log that was made without a retain model, as that of a retain model
    itself, the value it states is
    recomputed: open-unlearning then takes .5 for the retain model's AUC. A note says so, since a model that never saw
    the rows need not have .5.
    """
    alone = retain_log is None and without_reference(log)
    reason = unfit(log, log if alone else retain_log, "mia_min_k")
    if reason:
        return Found(None, 0, reason)
    ours = attack("mia_min_k", log["mia_min_k"])["mia_min_k"]
    theirs = Found(HALF) if alone else attack("mia_min_k", retain_log["mia_min_k"])["mia_min_k"]
    if ours.reason or theirs.reason:
        return Found(None, 0, ours.reason or f"the retain log: {theirs.reason}")
    leak = metrics.privacy_leak(ours.value, theirs.value)
    if leak is None:
        return Found(None, 0, "the retain model's AUC is 1: it recognises the forget rows itself")
    return Found(
        leak,
        ours.rows,
        None,
        f"against an AUC of {HALF}, as the log was made without a retain model" if alone else None,
    )


# Writing


def make_log(rows: dict[str, Any], retain_log: dict[str, Any] | None = None) -> dict[str, Any]:
    """The log of an evaluation.

    rows: by the log's metric names, one dict a row in the order of the set (`probability_rows`, `score_rows`,
    `rouge_rows`); for an attack {"forget": scores, "holdout": scores}. Truth ratios, normalised probabilities and the
    metrics without rows are added where what they need is there, every aggregate is that of `recompute`. UserError for
    a name that the format does not have.
    """
    unknown = sorted(name for name in rows if name not in RULES and name not in ATTACKS)
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: no metric of a TOFU evaluation log; choose from "
            f"{', '.join(sorted([*RULES, *ATTACKS]))}"
        )
    empty = {"auc": None, "agg_value": None}
    log = {
        n: {side: indexed(score_rows(r[side])) for side in SIDES} | empty if n in ATTACKS else indexed(r)
        for n, r in rows.items()
    }
    log = derived_rows(log) | log
    needs = {"forget_quality": {RATIOS["forget"]}, "model_utility": set(UTILITY), "privleak": {"mia_min_k"}}
    log |= {name: {"agg_value": None} for name in DERIVED if needs[name] <= log.keys()}
    for name, value in aggregates(log, retain_log).items():
        name, _, side = name.partition("/")
        (log[name][side] if side else log[name])["agg_value"] = value
        if name in ATTACKS and not side:
            log[name]["auc"] = value
    return {name: log[name] for name in sorted(log)}


def write_log(file: str | Path, rows: dict[str, Any], retain_log: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the log of `make_log` as JSON, whole or not at all, and return it."""
    log = make_log(rows, retain_log)
    write_json(Path(file), log)
    return log
