"""Recalls of the five sets before and now, with intervals and histograms."""

from typing import Any

from pmc_jax.evaluate import quality
from pmc_jax.report.curves import histogram
from pmc_jax.report.read import Run

SETS = {
    "forget": "Forget",
    "forget_paraphrased": "Forget, paraphrased",
    "retain": "Retain",
    "world_facts": "World facts",
    "real_authors": "Real authors",
}
FORGET, KEEP = ("forget", "forget_paraphrased"), ("retain", "world_facts", "real_authors")


def values(run: Run, stage: str, name: str) -> list[float]:
    """The per-row ROUGE-L recall of a set, "before" or "now"."""
    return [row["rouge_l_recall"] for row in run.answers[stage] if row["set"] == name]


def intervals(run: Run, stage: str) -> dict[str, tuple[float, float] | None]:
    """Bootstrap 95 % intervals of the recalls, unlearn quality and utility, from the answers "before" or "now".

    {} where there are none.
    """
    recalls = {name: recalls_N for name in SETS if (recalls_N := values(run, stage, name))}
    return quality.summarise(recalls)["intervals"] if "forget" in recalls else {}


def recall_rows(runs: list[Run]) -> list[dict[str, Any]]:
    """Each set with a cell for each run."""
    return [
        {"title": title, "keep": name in KEEP, "cells": [recall(run, name) for run in runs]}
        for name, title in SETS.items()
    ]


def recall(run: Run, name: str) -> dict[str, Any] | None:
    """Mean recall of a set before and now, with intervals and the number of rows; None where it was not evaluated."""
    means = {"before": run.before.get(name), "now": run.now.get(name)}
    if means["before"] is None and means["now"] is None:
        return None
    spans = {
        stage: {"mean": mean, "interval": intervals(run, stage).get(name)}
        for stage, mean in means.items()
        if mean is not None
    }
    return {"rows": (run.now or run.before)["rows"][name], "before": spans.get("before"), "now": spans.get("now")}


def histograms(run: Run) -> list[dict[str, Any]]:
    """How the recall of single answers is spread, before and now, where there are answers."""
    both = [
        (SETS[name], values(run, "before", name), values(run, "now", name))
        for name in ("forget", "forget_paraphrased", "retain")
    ]
    return [
        {"title": title} | histogram([("before", before), ("now", now)], ["before", "after"])
        for title, before, now in both
        if before or now
    ]
