"""Recalls of the five sets before and now, with intervals and histograms."""

from typing import Any

from pmc_jax.evaluate import quality
from pmc_jax.evaluate.recall import CONTENT, left_out
from pmc_jax.evaluate.views import SCORES, join, saw
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


def values(run: Run, stage: str, name: str, score: str) -> list[float]:
    """The recall of each row of a set, "before" or "now"; rows without one are left out."""
    given = [row.get(score) for row in run.answers[stage] if row["set"] == name]
    return [value for value in given if value is not None]


def intervals(run: Run, stage: str) -> dict[str, tuple[float, float] | None]:
    """Bootstrap 95 % intervals of the recalls, unlearn quality and utility, from the answers "before" or "now".

    {} where there are none.
    """
    recalls = {name: recalls_N for name in SETS if (recalls_N := values(run, stage, name, run.score))}
    return quality.summarise(recalls)["intervals"] if "forget" in recalls else {}


def recall_groups(runs: list[Run]) -> list[dict[str, Any]]:
    """[{"title": score, "rows": each set with a cell for each run}]: the score of the runs, then content recall."""
    main = [
        {"title": title, "keep": name in KEEP, "cells": [recall(run, name) for run in runs]}
        for name, title in SETS.items()
    ]
    by_content = [
        {"title": title, "keep": name in KEEP, "cells": [content_recall(run, name) for run in runs]}
        for name, title in SETS.items()
    ]
    groups = {", ".join(dict.fromkeys(SCORES[run.score] for run in runs)): main + never_saw(runs, "forget")}
    if any(cell for row in by_content for cell in row["cells"]):
        rows = [row for row in by_content if any(row["cells"])] + never_saw(runs, CONTENT)
        groups.setdefault(SCORES[CONTENT], rows)
    return [{"title": title[0].upper() + title[1:], "rows": rows} for title, rows in groups.items()]


def never_saw(runs: list[Run], key: str) -> list[dict[str, Any]]:
    """The row of a model that never saw the forget answers, where a run has measured one."""
    cells = [(run.now.get("never_saw") or {}).get(key) for run in runs]
    spans = [
        cell and cell["mean"] is not None and {"rows": cell["rows"], "before": None, "now": span(cell), "note": ""}
        for cell in cells
    ]
    return [{"title": "Forget, by a model that never saw it", "keep": None, "cells": spans}] if any(spans) else []


def span(entry: dict[str, Any]) -> dict[str, Any]:
    """A mean with its interval, for a strip."""
    return {"mean": entry["mean"], "interval": None if entry["low"] is None else (entry["low"], entry["high"])}


def recall(run: Run, name: str) -> dict[str, Any] | None:
    """Mean recall of a set before and now, with intervals, the number of rows and what there is to say of them; None
    where it was not evaluated.
    """
    means = {"before": run.before.get(name), "now": run.now.get(name)}
    if means["before"] is None and means["now"] is None:
        return None
    spans = {
        stage: {"mean": mean, "interval": intervals(run, stage).get(name)}
        for stage, mean in means.items()
        if mean is not None
    }
    summary = run.now or run.before
    rows = summary["rows"][name]
    parts = left_out({"rows": rows, "of": summary.get("of", {}).get(name, rows)}), saw(summary, name)
    return {"rows": rows, "before": spans.get("before"), "now": spans.get("now"), "note": join(*parts)}


def content_recall(run: Run, name: str) -> dict[str, Any] | None:
    """The same by content recall."""
    entries = {
        stage: entry
        for stage, summary in (("before", run.before), ("now", run.now))
        if (entry := summary.get(CONTENT, {}).get(name)) and entry["mean"] is not None
    }
    if not entries:
        return None
    last = entries.get("now") or entries["before"]
    spans = {stage: span(entry) for stage, entry in entries.items()}
    return {"rows": last["rows"], "before": spans.get("before"), "now": spans.get("now"), "note": left_out(last)}


def histograms(run: Run) -> list[dict[str, Any]]:
    """How the recall of single answers is spread, before and now, where there are answers."""
    shown = [(name, run.score) for name in ("forget", "forget_paraphrased", "retain")]
    shown += [(name, CONTENT) for name in FORGET if run.score != CONTENT]
    both = [
        (f"{SETS[name]}, {SCORES[score]}", values(run, "before", name, score), values(run, "now", name, score))
        for name, score in shown
    ]
    return [
        {"title": title} | histogram([("before", before), ("now", now)], ["before", "after"])
        for title, before, now in both
        if before or now
    ]
