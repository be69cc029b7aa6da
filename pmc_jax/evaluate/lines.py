"""Lines of results. The terminal, result.json and the page all show these lines, so they always say the same.

A view turns one result (JSON) into lines. This module imports no model library: `pmc-jax report` starts at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

# form of a line -> (format of the value, format of the bounds of its interval)
FORMS = {
    "share": (".3f", ".3f"),  # a mean in 0..1, which the page draws on a strip
    "points": (".1f", ".1f"),  # 0..100
    "change": ("+.3f", "+.3f"),
    "small change": ("+.4f", "+.4f"),
    "number": (".4g", ".3f"),
}


class Line(NamedTuple):
    """One value of a result.

    Attributes:
        name: what was measured; with `hint`, unique in its table.
        value: the value; None where it is not computed, and then `note` says why.
        low: lower bound of the value's 95 % interval, or None.
        high: upper bound, or None.
        rows: number of rows that the value was measured on, or None.
        form: a key of `FORMS`.
        hint: how to read the name, such as "lower is better".
        note: what else there is to say of the value.
        x: where the value lies on the x axis of the view's chart; None: it is no point of a curve.
        series: the curve that the point belongs to; "" is the evaluated model itself.
        spread: the values of single rows, 0..1, for a histogram; None: there is none.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    rows: int | None = None
    form: str = "share"
    hint: str = ""
    note: str = ""
    x: int | None = None
    series: str = ""
    spread: list[float] | None = None

    def value_text(self) -> str:
        """The value in the digits of its form."""
        return "not computed" if self.value is None else format(self.value, FORMS[self.form][0])

    def interval_text(self) -> str:
        """The interval, or nothing."""
        bounds = FORMS[self.form][1]
        return "" if self.low is None else f"[{format(self.low, bounds)}, {format(self.high, bounds)}]"


class Chart(NamedTuple):
    """The words around the curves of a view. unit: what the x axis counts."""

    title: str
    meaning: str
    unit: str


class View(NamedTuple):
    """How one result is shown.

    Attributes:
        title: heading of the table.
        lines: result -> its lines. It is not called with a result that holds "reason".
        note: what the values mean, in a sentence or two.
        chart: the words around the curves, for lines with an x.
    """

    title: str
    lines: Callable[[Any], list[Line]]
    note: str = ""
    chart: Chart | None = None


class Table(NamedTuple):
    """A result as it is shown. reasons: why pieces of it are not computed."""

    title: str
    note: str
    lines: list[Line]
    reasons: list[str]
    chart: Chart | None = None


def table(view: View, result: dict[str, Any]) -> Table:
    """A result in the words of its view."""
    lines = [] if "reason" in result else view.lines(result)
    return Table(view.title, view.note, lines, reasons(result), view.chart)


def reasons(result: dict[str, Any]) -> list[str]:
    """Why a result, or a piece of it that is no line, is not computed; each reason once."""
    pieces = [piece for piece in result.values() if isinstance(piece, dict) and "value" not in piece]
    given = [result.get("reason"), *(piece.get("reason") for piece in pieces)]
    return list(dict.fromkeys(reason for reason in given if reason))


def to_json(shown: Table) -> dict[str, Any]:
    """A table as JSON."""
    chart = shown.chart and shown.chart._asdict()
    return shown._asdict() | {"lines": [line._asdict() for line in shown.lines], "chart": chart}


def from_json(stored: dict[str, Any]) -> Table:
    """The table that `to_json` stored."""
    chart = stored["chart"] and Chart(**stored["chart"])
    return Table(**stored | {"lines": [Line(**line) for line in stored["lines"]], "chart": chart})


def mean_line(name: str, entry: dict[str, Any], **more: Any) -> Line:
    """The line of a mean with its interval, an `interval.Interval` as a dict."""
    return Line(name, entry["mean"], entry["low"], entry["high"], entry["rows"], **more)


def tables_of(result: dict[str, Any], views: dict[str, View]) -> dict[str, Table]:
    """The tables of a result.json by key; by the views where it is from before it held tables."""
    if "tables" in result:
        return {key: from_json(stored) for key, stored in result["tables"].items()}
    return {key: table(view, result[key]) for key, view in views.items() if key in result}
