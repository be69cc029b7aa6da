"""What `pmc-jax evaluate` measured beyond the answers: leakage, relearning, the least likely option, neighbouring
knowledge, drift.

Each topic becomes a table whose cells are spans (a mean in 0..1 with its interval), or words where a number may be
negative or is missing.
"""

from collections.abc import Callable
from typing import Any

from pmc_jax.report.curves import Line, chart, histogram
from pmc_jax.report.read import Run

Cell = dict[str, Any]
LEAKS = {"sampled": "sampled", "prefilled": "after “The answer is:”"}
MEASURES = {
    "worst": "Worst sample",
    "mean": "Mean sample",
    "M_bin": "M_bin: chance that half of the answer or more leaks, at most",
    "M_gen": "M_gen: chance that more than half leaks, at most, from the distribution’s band",
    "M_mu": "M_mu: mean, at most",
    "M_sigma": "M_sigma: standard deviation, at most",
    "ED": "ED: mean + 2 standard deviations",
}


def measures(runs: list[Run]) -> list[dict[str, Any]]:
    """The topics that any of the runs has measured, for the template."""
    found = [topic(runs) for topic in (leakage, relearning, option, neighbours, drift)]
    return [f for f in found if f["rows"] or f["charts"]]


def topic(name: str, title: str, note: str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """One topic: rows that no run has anything for are left out."""
    return {
        "id": name,
        "title": title,
        "note": note,
        "rows": [r for r in rows if any(r["cells"])],
        "charts": [],
        "histograms": [],
        "names": [],
    } | more


def row(title: str, small: str, cells: list[Cell | None]) -> dict[str, Any]:
    """One line of a topic: its name, a word on how to read it, and a cell for each run."""
    return {"title": title, "small": small, "cells": cells}


def span(entry: dict[str, Any] | None) -> Cell | None:
    """A mean in 0..1 with its interval."""
    if not entry or entry.get("mean") is None:
        return None
    interval = None if entry["low"] is None else (entry["low"], entry["high"])
    return {
        "span": {"now": {"mean": entry["mean"], "interval": interval}, "before": None, "rows": entry["rows"]},
        "value": "",
        "more": "",
    }


def words(entry: dict[str, Any] | None, digits: int = 3, more: str = "") -> Cell | None:
    """A mean of either sign with its interval, in words."""
    if not entry or entry.get("mean") is None:
        return None
    interval = "" if entry["low"] is None else f" [{entry['low']:+.{digits}f}, {entry['high']:+.{digits}f}]"
    return {"span": None, "value": f"{entry['mean']:+.{digits}f}", "more": f"{interval} {entry['rows']} rows{more}"}


def piece(run: Run, *path: str) -> Any:
    """result.json at a path; None where there is nothing."""
    value: Any = run.result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def leakage(runs: list[Run]) -> dict[str, Any]:
    """What many samples give away of the forget answers, plain and after a prefilled start."""
    rows = [
        row(title, how_title, [span(piece(run, "leakage", how, "measures", name)) for run in runs])
        for how, how_title in LEAKS.items()
        for name, title in MEASURES.items()
    ]
    samples = next((n for run in runs for how in LEAKS if (n := piece(run, "leakage", how, "samples"))), 0)
    note = (
        f"ROUGE-L recall of the secret in {samples} answers sampled for each forget question, as the model is "
        "(temperature 1), and after words put "
        "in its mouth; lower is better. Bounds hold with 95 %."
    )
    histograms = []
    for how, title in LEAKS.items():
        spread = [(run.name, worst) for run in runs if (worst := piece(run, "leakage", how, "worst_of_each"))]
        if spread:
            colours = [f"c{i % 6}" for i, run in enumerate(runs) if piece(run, "leakage", how, "worst_of_each")]
            histograms.append({"title": f"Worst sample of each question, {title}"} | histogram(spread, colours))
    return topic(
        "leakage", "Leakage under sampling", note, rows, histograms=histograms, names=[run.name for run in runs]
    )


def relearning(runs: list[Run]) -> dict[str, Any]:
    """Curves of the models, and of the first retain model that one of the runs was held against. A run without a curve
    keeps its colour.
    """
    curves = [(run.name, piece(run, "relearning", "model", "looks") or []) for run in runs]
    retain = next((looks for run in runs if (looks := piece(run, "relearning", "retain_model", "looks"))), None)
    curves += [("retain model", retain)] if retain else []
    lines = [curve(name, looks) for name, looks in curves]
    drawn = chart(
        "Answers held back", "mean recall with its interval, by updates on the answers shown", lines, 1.0, "update"
    )
    note = (
        "A few forget answers are trained on; how soon do the others come back? A model that never saw them is the "
        "yardstick: what it gains is no "
        "memory of them."
    )
    return topic(
        "relearning", "Relearning", note, [], charts=[drawn] if drawn else [], names=[name for name, _ in curves]
    )


def curve(name: str, looks: list[dict[str, Any]]) -> Line:
    """Recall of what was held back; the first rows' alone where nothing was."""
    held = [look["held_back"] for look in looks]
    band = [(h["low"], h["high"]) if h["low"] is not None else (None, None) for h in held]
    return Line(name, [(look["updates"], h["mean"]) for look, h in zip(looks, held)], band)


def option(runs: list[Run]) -> dict[str, Any]:
    """The least likely option of a multiple choice, against chance."""
    found = [piece(run, "least_likely_option") or {} for run in runs]
    chance = [{"span": None, "value": f"{f['chance']:.3f}", "more": ""} if "chance" in f else None for f in found]
    rows = [
        row("The least likely is the secret", "at chance nothing shows", [span(f) for f in found]),
        row("Chance", "", chance),
    ]
    note = (
        "Unlearning that pushes the secret down leaves a fingerprint: the least likely option of a multiple choice "
        "is the secret more often than by "
        "chance."
    )
    return topic("option", "Least likely option", note, rows)


def neighbours(runs: list[Run]) -> dict[str, Any]:
    """Retain rows near to the forget set and far from it, and what became of them."""
    found = [run.neighbours for run in runs]
    rows = [
        row(name.capitalize(), "higher is better", [span((f.get("recall") or {}).get(name)) for f in found])
        for name in ("near", "far")
    ]
    rows.append(row("Near less far", "", [words((f.get("recall") or {}).get("difference")) for f in found]))
    titles = {"near": "Near, change", "far": "Far, change", "difference": "Near less far, change"}
    rows += [
        row(title, "since the original model", [words((f.get("change") or {}).get(name)) for f in found])
        for name, title in titles.items()
    ]
    note = (
        "ROUGE-L recall of the quarter of retain questions nearest to the forget questions (by TF-IDF), and "
        "of the farthest quarter."
    )
    return topic("neighbours", "Neighbouring knowledge", note, rows)


def drift(runs: list[Run]) -> dict[str, Any]:
    """What became of the probability of words in unrelated text."""

    def cell(run: Run, kind: str) -> Cell | None:
        entry = piece(run, "drift", kind)
        return (
            words(entry, 4, f", {entry['words']} words, standard deviation {entry['std']:.4f}")
            if entry and entry["mean"] is not None
            else None
        )

    kinds = {"forget_words": "Words of forget answers", "other_words": "Other words"}
    rows = [row(title, "function words left out", [cell(run, kind) for run in runs]) for kind, title in kinds.items()]
    note = (
        "Change since the original model of a word’s probability in answers that have nothing to do with the secret. "
        "Words of the forget answers "
        "that lose more there than others do are a side effect of unlearning."
    )
    return topic("drift", "Drift in unrelated text", note, rows)


MEASURED: dict[str, Callable[[Run], Any]] = {
    "attacks": lambda run: piece(run, "tofu", "mia_loss"),
    "quality": lambda run: piece(run, "tofu", "forget_quality", "value") is not None,
    "leakage": lambda run: piece(run, "leakage", "sampled", "measures"),
    "option": lambda run: piece(run, "least_likely_option", "chance"),
    "relearning": lambda run: piece(run, "relearning", "model", "looks"),
    "drift": lambda run: piece(run, "drift", "forget_words"),
    "neighbours": lambda run: run.neighbours.get("recall"),
}
