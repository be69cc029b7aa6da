"""The tables of a comparison, as rows of text: the terminal, results.md and the page show the same ones."""

import textwrap
from typing import Any, NamedTuple

from pmc_jax.compare.measures import COURSE, MEASURES, QUALITY, ROBUSTNESS, Measure
from pmc_jax.compare.summary import Results, shown_points


class Table(NamedTuple):
    """A table.

    Attributes:
        title: heading.
        columns: headings of the columns; the first two are the row and its point.
        rows: texts.
        notes: how the columns are read.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def tables(results: Results) -> list[Table]:
    """Quality of the chosen points and of the untuned recipes; robustness of the chosen points; every point tried."""
    shown = [(row, point) for row in results["rows"] for point in shown_points(row)]
    chosen = [(row, point) for row, point in shown if point["point"]]
    yardsticks = [({"name": name, "keeps": True, "chosen": None}, p) for name, p in results["yardsticks"].items()]
    every = [(row, point) for row in results["rows"] for point in row["points"] if point["seeds"]]
    made = [
        table("Unlearn quality and utility", shown + yardsticks, QUALITY | COURSE),
        table("What is left of the secret, and side effects", chosen + yardsticks, ROBUSTNESS),
    ]
    if len(every) > len(shown):
        made.append(table("Every point", every, QUALITY))
    return [one for one in made if one.rows and len(one.columns) > 3]  # greedy answers alone say nothing new


def table(title: str, points: list[tuple[dict[str, Any], dict[str, Any]]], measures: dict[str, Measure]) -> Table:
    """A table of some points, with the columns that any of them has."""
    keys = [key for key in measures if any(key in point["measures"] for _, point in points)]
    has_more = [(row, point) for row, point in points if any(key in point["measures"] for key in keys)]
    counts = {len(point["seeds"]) for _, point in has_more}
    rows = [[name(row, point), seeds(point, counts), *(cell(point, key) for key in keys)] for row, point in has_more]
    chances = sorted({point["chance"] for _, point in has_more if point["chance"] is not None})
    more = {"least_likely": f" ({', '.join(f'{c:.3f}' for c in chances)})"} if chances else {}
    notes = [f"{MEASURES[key].title}: {MEASURES[key].meaning}{more.get(key, '')}" for key in keys]
    return Table(title, ["", "point", *(MEASURES[key].title for key in keys)], rows, notes)


def name(row: dict[str, Any], point: dict[str, Any]) -> str:
    """A row's name; with a mark where its chosen point does not keep the utility."""
    return row["name"] + ("" if row["keeps"] or point["point"] != row["chosen"] else " !")


def seeds(point: dict[str, Any], counts: set[int]) -> str:
    """A point's label, and how many seeds it has where not all have as many."""
    count = len(point["seeds"])
    told = f"{count} seed{'s' * (count > 1)}" if len(counts) > 1 and point["label"] else ""
    return ", ".join(filter(None, [point["label"], told]))


def cell(point: dict[str, Any], key: str) -> str:
    """A mean with its spread."""
    spread = point["measures"].get(key)
    if spread is None or spread["mean"] is None:
        return "-"
    digits = MEASURES[key].digits
    std = "" if spread["std"] is None else f" ± {spread['std']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{std}"


def narrow(one: Table, measures: int = 5) -> list[Table]:
    """A table in parts of so many columns of numbers, each with the row's name and point in front, for a terminal."""
    starts = range(2, len(one.columns), measures)
    pick = lambda row, start: [*row[:2], *row[start : start + measures]]  # noqa: E731
    return [one._replace(columns=pick(one.columns, i), rows=[pick(row, i) for row in one.rows]) for i in starts]


def markdown(results: Results, figures: dict[str, str]) -> str:
    """The section of a comparison for docs/results.md.

    Args:
        results: of `summary.summarise`.
        figures: {title: address of its image}.
    """
    lines = [f"## {results['title']}", *wrapped(f"{results['rule']} {start_line(results)}"), ""]
    for one in tables(results):
        lines += [f"**{one.title}.** Mean ± standard deviation over seeds.", ""]
        lines += [f"| {' | '.join(row)} |" for row in (one.columns, ["---"] * len(one.columns), *one.rows)]
        lines += ["", *wrapped("; ".join(one.notes) + "."), ""]
    lines += [f"- {run}: {why}" for run, why in results["missing"].items()]
    lines += [f"![{title}]({address})\n" for title, address in figures.items()]
    return "\n".join(lines).rstrip() + "\n"


def wrapped(text: str) -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(text, 120)


def start_line(results: Results) -> str:
    """What the start scores, and what a chosen point has to keep."""
    quality, utility = results["start"].values()
    if utility is None:
        return "No run is finished."
    return (
        f"The start has an unlearn quality of {quality:.1f} and a utility of {utility:.1f}: "
        f"{results['floor'] / 100 * utility:.1f} are to be kept."
    )
