"""TOFU evaluation logs in open-unlearning's format (`log_format`): aggregates from their rows, and logs written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError
from pmc_jax.evaluate import membership, metrics
from pmc_jax.evaluate.log_format import ATTACKS, DERIVED, RULES, SIDES, UTILITY, check_log, row_values
from pmc_jax.evaluate.log_rows import RATIOS, derived_rows, indexed, score_rows
from pmc_jax.tracking.files import write_json

HALF = 0.5  # the AUC of an attack that cannot tell


class Aggregate(NamedTuple):
    """One aggregate: its value on `rows` rows, or None and the reason.

    Attributes:
        value: the value, or None.
        rows: number of rows.
        reason: why there is no value.
        note: what must be known to read the value.
    """

    value: float | None
    rows: int = 0
    reason: str | None = None
    note: str | None = None


class Recomputed(NamedTuple):
    """All aggregates of a log by its names; attacks also as mia_x/forget and mia_x/holdout.

    Attributes:
        values: None where not computed.
        rows: on how many rows.
        reasons: why a value is None.
        notes: what must be known to read a value.
    """

    values: dict[str, float | None]
    rows: dict[str, int]
    reasons: dict[str, str]
    notes: dict[str, str]


def aggregates(log: dict[str, Any], retain_log: dict[str, Any] | None = None) -> dict[str, float | None]:
    """Every metric of the log, recomputed from its rows; None where `recompute` has a reason."""
    return recompute(log, retain_log).values


def recompute(log: dict[str, Any], retain_log: dict[str, Any] | None = None) -> Recomputed:
    """Recompute every aggregate of a log from its rows.

    Args:
        log: of the model.
        retain_log: of a model that never saw the forget set, on the same forget rows; forget_quality and privleak are
            not computed without it, but see `privacy_leak`.

    Raises:
        UserError: either is no log.
    """
    check_log(log, "the log")
    if retain_log is not None:
        check_log(retain_log, "the retain log")
    computed: dict[str, Aggregate] = {}
    for name, entry in log.items():
        if name in RULES:
            key, mean = RULES[name]
            computed[name] = over_rows(row_values(entry, key), mean)
        elif name in ATTACKS:
            computed |= attack(name, entry)
        elif name not in DERIVED:
            computed[name] = Aggregate(None, 0, "not one of TOFU's metrics: no rule to recompute it")
    if "model_utility" in log:
        computed["model_utility"] = model_utility(computed)
    if "forget_quality" in log:
        computed["forget_quality"] = forget_quality(log, retain_log)
    if "privleak" in log:
        computed["privleak"] = privacy_leak(log, retain_log)
    computed = {name: computed[name] for name in sorted(computed)}
    return Recomputed(
        {name: aggregate.value for name, aggregate in computed.items()},
        {name: aggregate.rows for name, aggregate in computed.items()},
        {name: aggregate.reason for name, aggregate in computed.items() if aggregate.reason},
        {name: aggregate.note for name, aggregate in computed.items() if aggregate.note},
    )


def over_rows(values_N: np.ndarray, mean: Callable) -> Aggregate:
    """`mean` of the rows; not computed without rows, nor where one is no finite number (a model that diverged)."""
    broken = int((~np.isfinite(values_N)).sum())
    if broken:
        return Aggregate(None, 0, f"{broken} of {values_N.size} rows are not finite numbers")
    if not values_N.size:
        return Aggregate(None, 0, "no row has a value")
    return Aggregate(float(mean(values_N)), values_N.size)


def attack(name: str, entry: dict[str, Any]) -> dict[str, Aggregate]:
    """The attack's AUC under its name, and the mean score of either side."""
    sides = {side: row_values(entry[side], "score") for side in SIDES}
    means = {f"{name}/{side}": over_rows(values, np.mean) for side, values in sides.items()}
    reason = next((f"{side_name}: {mean.reason}" for side_name, mean in means.items() if mean.reason), None)
    if reason:
        return {name: Aggregate(None, 0, reason), **means}
    return {name: Aggregate(membership.auc(*sides.values()), sum(v.size for v in sides.values())), **means}


def model_utility(computed: dict[str, Aggregate]) -> Aggregate:
    """The harmonic mean of the nine; rows: those of the three sets together."""
    missing = [name for name in UTILITY if name not in computed or computed[name].value is None]
    if missing:
        return Aggregate(None, 0, f"needs {', '.join(missing)}")
    rows = sum(computed[name].rows for name in UTILITY[::3])
    return Aggregate(metrics.model_utility([computed[name].value for name in UTILITY]), rows)


def mismatch(log: dict[str, Any], retain_log: dict[str, Any] | None, needed: str) -> str | None:
    """Why the two logs cannot be compared by the metric `needed`; None where they can.

    Logs of other forget rows would give a wrong number.
    """
    if retain_log is None:
        return metrics.NO_RETAIN
    for title, one in (("the log", log), ("the retain log", retain_log)):
        if needed not in one:
            return f"{title} has no {needed}"
    rows, retain_rows = (one[needed].get("forget", one[needed])["value_by_index"] for one in (log, retain_log))
    if len(rows) != len(retain_rows):
        return f"the retain log is of another forget set: {len(retain_rows)} rows, not {len(rows)}"
    truths, retain_truths = (
        [(r or {}).get("ground_truth") for r in one.get("forget_Q_A_ROUGE", {}).get("value_by_index", {}).values()]
        for one in (log, retain_log)
    )
    if truths and retain_truths and truths != retain_truths:
        return "the retain log is of another forget set: its forget_Q_A_ROUGE has other ground truths"
    return None


def forget_quality(log: dict[str, Any], retain_log: dict[str, Any] | None) -> Aggregate:
    """p of the KS test between the truth ratios of the two logs."""
    name = RATIOS["forget"]
    reason = mismatch(log, retain_log, name)
    if reason:
        return Aggregate(None, 0, reason)
    ratios_N, retain_ratios_N = (row_values(one[name], "score") for one in (log, retain_log))
    quality = metrics.forget_quality(ratios_N, retain_ratios_N)
    if quality.reason:
        return Aggregate(None, 0, quality.reason)
    note = f"p; log10 p {quality.log10_p:.2f}, Kolmogorov-Smirnov distance D {quality.distance:.4f}"
    return Aggregate(quality.p, ratios_N.size, None, note)


def without_reference(log: dict[str, Any]) -> bool:
    """Whether the log itself states a privacy leak that was made without a retain model.

    Such a log states a privacy leak, and no forget quality.
    """
    return log["privleak"].get("agg_value") is not None and log.get("forget_quality", {}).get("agg_value") is None


def privacy_leak(log: dict[str, Any], retain_log: dict[str, Any] | None) -> Aggregate:
    """The privacy leak from the AUCs of min-k in the two logs.

    Of a log that was made without a retain model, such as that of a retain model itself, the value that it states is
    recomputed: open-unlearning then takes .5 for the retain model's AUC. A note says so, since a model that never saw
    the rows need not have .5.
    """
    alone = retain_log is None and without_reference(log)
    reason = mismatch(log, log if alone else retain_log, "mia_min_k")
    if reason:
        return Aggregate(None, 0, reason)
    auc = attack("mia_min_k", log["mia_min_k"])["mia_min_k"]
    retain_auc = Aggregate(HALF) if alone else attack("mia_min_k", retain_log["mia_min_k"])["mia_min_k"]
    if auc.reason or retain_auc.reason:
        return Aggregate(None, 0, auc.reason or f"the retain log: {retain_auc.reason}")
    leak = metrics.privacy_leak(auc.value, retain_auc.value)
    if leak is None:
        return Aggregate(None, 0, "the retain model's AUC is 1: it recognises the forget rows itself")
    note = f"against an AUC of {HALF}, as the log was made without a retain model" if alone else None
    return Aggregate(leak, auc.rows, None, note)


def make_log(rows: dict[str, Any], retain_log: dict[str, Any] | None = None) -> dict[str, Any]:
    """The log of an evaluation.

    Truth ratios, normalised probabilities and the metrics without rows are added where what they need is there. Every
    aggregate is that of `recompute`.

    Args:
        rows: by the log's metric names, one dict a row in the order of the set (`probability_rows`, `score_rows`,
            `rouge_rows`); for an attack {"forget": scores, "holdout": scores}.
        retain_log: as `recompute` takes it.

    Raises:
        UserError: a name that the format does not have.
    """
    unknown = sorted(name for name in rows if name not in RULES and name not in ATTACKS)
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: no metric of a TOFU evaluation log; choose from "
            f"{', '.join(sorted([*RULES, *ATTACKS]))}"
        )
    empty = {"auc": None, "agg_value": None}
    log = {
        name: {side: indexed(score_rows(entry[side])) for side in SIDES} | empty if name in ATTACKS else indexed(entry)
        for name, entry in rows.items()
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
