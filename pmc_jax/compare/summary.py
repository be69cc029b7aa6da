"""What the runs of a comparison measured -> results.json: every point with mean and spread, and which one is chosen.

Tables, figures and the page are made of this alone.
"""

from typing import Any, NamedTuple

import numpy as np

from pmc_jax.compare.choose import Tried, choose, pareto_front, rule, spread
from pmc_jax.compare.measures import MEASURES, Measured

Results = dict[str, Any]


class Point(NamedTuple):
    """A grid point of a row.

    Attributes:
        number: of the point; 0 = the untuned recipe.
        label: what it changes, in words.
        changes: the same as settings.
        runs: {seed: what was measured} of the finished runs.
    """

    number: int
    label: str
    changes: dict[str, Any]
    runs: dict[int, Measured]


class Asked(NamedTuple):
    """What a comparison was asked for.

    Attributes:
        title: heading of the table.
        seeds: all seeds.
        tuning: those that points are chosen by.
        floor: percent of the start's utility that a chosen point keeps.
    """

    title: str
    seeds: tuple[int, ...]
    tuning: tuple[int, ...]
    floor: float


def summarise(asked: Asked, rows: dict[str, list[Point]], yardsticks: dict[str, Measured]) -> Results:
    """The results of a comparison.

    Args:
        asked: for.
        rows: the points of each row.
        yardsticks: models that no run made, by name: the start, one that never saw the forget data.

    Returns:
        What results.json holds, but for what is missing: the rule; the start's numbers; rows with their points,
        "chosen" (None where no grid point has all the seeds that it is chosen by) and "keeps"; the Pareto front as
        (row, point).
    """
    made = [row_of(name, points, asked) for name, points in rows.items()]
    everything = [(row["name"], p["point"], mean_of(p, *AXES)) for row in made for p in row["points"] if p["seeds"]]
    known = [one for one in everything if None not in one[2]]
    front = [known[i][:2] for i in pareto_front([numbers for *_, numbers in known])]
    starts = [run.start for points in rows.values() for point in points for run in point.runs.values()]
    return {
        "title": asked.title,
        "rule": rule(asked.floor, len(asked.tuning), len(asked.seeds)),
        "floor": asked.floor,
        "seeds": list(asked.seeds),
        "tuning_seeds": list(asked.tuning),
        "start": {key: spread([start[key] for start in starts]).mean for key in AXES},
        "rows": made,
        "yardsticks": {name: point_of(Point(0, "", {}, {0: one}), (0,)) for name, one in yardsticks.items()},
        "pareto_front": [list(key) for key in front],
    }


AXES = ("unlearn_quality", "utility")


def row_of(name: str, points: list[Point], asked: Asked) -> dict[str, Any]:
    """A row with its points, and which of them is chosen."""
    starts = [run.start["utility"] for point in points for run in point.runs.values()]
    tried = []
    for point in points:
        numbers = [[run.numbers[key] for key in AXES] for seed in asked.tuning if (run := point.runs.get(seed))]
        if point.number and len(numbers) == len(asked.tuning):
            tried.append(Tried(point.number, *np.mean(numbers, axis=0).tolist()))
    chosen, keeps = choose(tried, asked.floor / 100 * float(np.mean(starts))) if tried else (None, False)
    made = [point_of(point, asked.seeds) for point in points]
    return {"name": name, "chosen": chosen, "keeps": keeps, "points": made}


def point_of(point: Point, seeds: tuple[int, ...]) -> dict[str, Any]:
    """A point with mean, spread and values of all its numbers, in the order of the seeds that are there."""
    runs = [point.runs[seed] for seed in seeds if seed in point.runs]
    keys = [key for key in MEASURES if any(run.numbers.get(key) is not None for run in runs)]
    return {
        "point": point.number,
        "label": point.label,
        "changes": point.changes,
        "seeds": [seed for seed in seeds if seed in point.runs],
        "measures": {key: spread([run.numbers.get(key) for run in runs])._asdict() for key in keys},
        "chance": next((run.chance for run in runs if run.chance is not None), None),
        "course": averaged([run.course for run in runs]),
        "relearning": averaged([[{"updates": n, "recall": r} for n, r in run.relearning] for run in runs]),
    }


def averaged(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The mean of several curves, at the updates that all of them have."""
    by_updates = [{look["updates"]: look for look in curve} for curve in curves if curve]
    common = sorted(set.intersection(*map(set, by_updates))) if by_updates else []
    return [
        {key: float(np.mean([curve[updates][key] for curve in by_updates])) for key in by_updates[0][updates]}
        for updates in common
    ]


def mean_of(point: dict[str, Any], *keys: str) -> list[float | None]:
    """The means of some measures of a point; None for one that it does not have."""
    return [point["measures"].get(key, {}).get("mean") for key in keys]


def shown_points(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a row that the table shows: the chosen one, and the untuned recipe."""
    by_number = {point["point"]: point for point in row["points"] if point["seeds"]}
    return [by_number[number] for number in (row["chosen"], 0) if number in by_number]


def chosen_points(results: Results) -> dict[str, dict[str, Any]]:
    """{row: its chosen point} of the rows that have one."""
    return {row["name"]: shown_points(row)[0] for row in results["rows"] if row["chosen"] is not None}
