"""How a run was made: seconds by phase, settings, data and versions; one column a run."""

import json
from typing import Any

from pmc_jax import config as settings
from pmc_jax.report.read import Run


def seconds(runs: list[Run]) -> dict[str, Any]:
    """Seconds by phase, one column a run; rounds alone for a run that is not finished."""
    columns = [phases(run) for run in runs]
    return {
        "rows": rows_of(columns),
        "most": max((v for column in columns for v in column.values()), default=1.0) or 1.0,
    }


def phases(run: Run) -> dict[str, float]:
    """Seconds of each phase of a finished run; what an unfinished one has spent in rounds."""
    if run.result:
        return {k: v for k, v in run.result["seconds"].items() if k not in ("total", "first_update")}
    return {"rounds so far": sum(r.get("seconds", 0.0) for r in run.rounds)} if run.rounds else {}


def rows_of(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Columns of {name: value} -> rows {name, cells, differ}."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        {
            "name": n,
            "cells": (cells := [c.get(n) for c in columns]),
            "differ": any(c != cells[0] for c in cells),
            "meaning": "",
        }
        for n in names
    ]


def settings_rows(runs: list[Run]) -> list[dict[str, Any]]:
    """Each setting: its value in each run, what it means, whether it is worth a look: not the default, or not the
    same.
    """
    about = {s.name: s for s in settings.SETTINGS}
    rows = rows_of([run.frozen["settings"] for run in runs])
    for row in rows:
        known = about.get(row["name"])
        row["meaning"] = known.meaning if known else ""
        row["special"] = row["differ"] or not known or any(cell != known.default for cell in row["cells"])
        row["cells"] = [json.dumps(cell, ensure_ascii=False) for cell in row["cells"]]
    return rows
