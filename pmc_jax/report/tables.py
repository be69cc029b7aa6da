"""Tables of results, one column a run: the lines of `evaluate.lines`, with strips, curves and histograms."""

from typing import Any

from pmc_jax.evaluate import views
from pmc_jax.evaluate.lines import Line, Table
from pmc_jax.report import curves
from pmc_jax.report.read import Run

ELSEWHERE = ("model",)  # the page has sections of its own for these results


def sections(runs: list[Run]) -> list[dict[str, Any]]:
    """One section for each result that any of the runs has, for the template; the project's own come first."""
    keys = dict.fromkeys([*views.VIEWS, *(key for run in runs for key in run.tables)])
    made = [section(key, runs) for key in keys if key not in ELSEWHERE and any(key in run.tables for run in runs)]
    return [s for s in made if s["rows"] or s["charts"] or s["reasons"]]


def section(key: str, runs: list[Run]) -> dict[str, Any]:
    """One result of all runs."""
    tables = [run.tables.get(key) for run in runs]
    first = next(table for table in tables if table)
    charts, names = charts_of(first, tables, runs)
    return {
        "id": key,
        "title": first.title,
        "note": first.note,
        "rows": rows_of(tables),
        "charts": charts,
        "names": names or [run.name for run in runs],
        "histograms": histograms_of(tables, runs),
        "reasons": [
            {"run": run.name if len(runs) > 1 else "", "reason": reason}
            for run, table in zip(runs, tables)
            for reason in (table.reasons if table else [])
        ],
    }


def rows_of(tables: list[Table | None]) -> list[dict[str, Any]]:
    """The lines side by side, those of the same name and hint; points of curves are in the chart only."""
    by_name = [{(line.name, line.hint): line for line in (t.lines if t else []) if line.x is None} for t in tables]
    names = dict.fromkeys(key for lines in by_name for key in lines)
    return [
        {"title": name, "small": hint, "cells": [cell(lines.get((name, hint))) for lines in by_name]}
        for name, hint in names
    ]


def cell(line: Line | None) -> dict[str, Any] | None:
    """A line for the template: a strip for a mean in 0..1, else words; None where a run has no such line."""
    if line is None:
        return None
    if line.value is None:
        return {"span": None, "value": "", "more": f"not computed: {line.note}" if line.note else "not computed"}
    interval = None if line.low is None else (line.low, line.high)
    if line.form == "share" and line.rows is not None:
        span = {"now": {"mean": line.value, "interval": interval}, "before": None, "rows": line.rows, "note": ""}
        return {"span": span, "value": "", "more": line.note}
    count = "" if line.rows is None else f"{line.rows} rows"
    words = " ".join(text for text in (line.interval_text(), count) if text)
    return {"span": None, "value": line.value_text(), "more": ", ".join(text for text in (words, line.note) if text)}


def charts_of(first: Table, tables: list[Table | None], runs: list[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """(charts, names of their curves): a curve for each run, and each yardstick of the first run that has it.

    A run without points keeps its colour.
    """
    if first.chart is None:
        return [], []
    points = [[line for line in (table.lines if table else []) if line.x is not None] for table in tables]
    drawn = [curve(run.name, [line for line in lines if not line.series]) for run, lines in zip(runs, points)]
    for name in dict.fromkeys(line.series for lines in points for line in lines if line.series):
        owner = next(lines for lines in points if any(line.series == name for line in lines))
        drawn.append(curve(name, [line for line in owner if line.series == name]))
    chart = curves.chart(first.chart.title, first.chart.meaning, drawn, 1.0, first.chart.unit)
    return [chart] if chart else [], [line.name for line in drawn]


def curve(name: str, points: list[Line]) -> curves.Line:
    """The points of one curve, with their intervals as a band."""
    band = [(point.low, point.high) for point in points]
    return curves.Line(name, [(point.x, point.value) for point in points], band)


def histograms_of(tables: list[Table | None], runs: list[Run]) -> list[dict[str, Any]]:
    """The values of single rows, for the lines that have them; each run keeps its colour."""
    made = []
    spreads = {
        (line.name, line.hint, i): line.spread
        for i, table in enumerate(tables)
        for line in (table.lines if table else [])
        if line.spread
    }
    for name, hint in dict.fromkeys((name, hint) for name, hint, _ in spreads):
        series = [(run.name, spreads[name, hint, i]) for i, run in enumerate(runs) if (name, hint, i) in spreads]
        colours = [f"c{i % 6}" for i in range(len(runs)) if (name, hint, i) in spreads]
        made.append({"title": f"{name} of each question, {hint}"} | curves.histogram(series, colours))
    return made
