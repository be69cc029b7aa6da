"""Plain numbers -> the geometry of small SVG charts; the template draws them, so that colours follow the page, light or
dark.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 24  # room for the labels around the plot
BINS = 10

Points = list[tuple[float, float | None]]


class Line(NamedTuple):
    """One run's curve.

    Attributes:
        name: the run.
        points: (x, value or None for a gap).
        band: (low, high) around each point, or None.
    """

    name: str
    points: Points
    band: list[tuple[float | None, float | None]] | None = None


def known(value: Any) -> bool:
    """Whether there is a finite number; a loss may have become NaN, a reward is None once everything is solved."""
    return isinstance(value, int | float) and math.isfinite(value)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to at least `high`, about `count` steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    return [low + i * step for i in range(math.ceil((high - low) / step - 1e-9) + 1)]


def whole_ticks(last: int, count: int = 5) -> list[int]:
    """Round numbers for the x axis: whole, from 0, none beyond `last`."""
    step = max(1, round(ticks(0, max(last, 1), count)[1]))
    return list(range(0, last + 1, step))


def label(value: float) -> str:
    """A number in few characters."""
    size = abs(value)
    return (
        f"{value:.3g}"
        if size < 1000
        else f"{value:,.0f}"
        if size < 1e6
        else f"{value / 1e6:.3g}M"
        if size < 1e9
        else f"{value:.0e}"
    )


def stretches(points: Iterable[tuple[float, ...]]) -> list[list[tuple[float, ...]]]:
    """The points between gaps."""
    runs: list[list[tuple[float, ...]]] = [[]]
    for point in points:
        if all(map(known, point)):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [points for points in runs if points]


def path(points: Points, to_x, to_y) -> str:
    """The d of an SVG path; h0 makes a lone point a dot."""
    parts = []
    for stretch in stretches(points):
        (x, y), *rest = [(to_x(x), to_y(y)) for x, y in stretch]
        parts.append(f"M{x:.1f} {y:.1f}h0" + "".join(f"L{a:.1f} {b:.1f}" for a, b in rest))
    return "".join(parts)


def band(line: Line, to_x, to_y) -> str:
    """The d of the area around the line."""
    parts = []
    both = [(x, low, high) for (x, _), (low, high) in zip(line.points, line.band or [])]
    for stretch in stretches(both):
        edge = [(x, high) for x, _, high in stretch] + [(x, low) for x, low, _ in reversed(stretch)]
        parts.append("M" + "L".join(f"{to_x(x):.1f} {to_y(y):.1f}" for x, y in edge) + "Z")
    return "".join(parts)


def chart(
    title: str, meaning: str, lines: list[Line], top: float | None = None, unit: str = "round"
) -> dict[str, Any] | None:
    """A chart for the template.

    Args:
        title: heading.
        meaning: a few words beside it.
        lines: the curves. Values beyond the axis are drawn at its end.
        top: the y axis goes from 0 to here; None: as high as the values.
        unit: what x counts; it goes from 0.

    Returns:
        None when no line has a value. "hits" is a strip for each x with points and what all lines say there, for a hint
        under the pointer.
    """
    values = [y for line in lines for _, y in line.points if known(y)]
    if not values:
        return None
    ys = ticks(0, top if top is not None else max(*values, 1e-6))
    last = max(int(x) for line in lines for x, _ in line.points)

    def to_x(x):
        return LEFT + x / max(last, 1) * (WIDTH - LEFT - RIGHT)

    def to_y(y):
        return HEIGHT - BOTTOM - min(max(y / ys[-1], 0), 1) * (HEIGHT - TOP - BOTTOM)

    wide = (WIDTH - LEFT - RIGHT) / max(last, 1)
    return {
        "title": title,
        "meaning": meaning,
        "y": [(to_y(v), label(v)) for v in ys],
        "x": [(to_x(v), str(v)) for v in whole_ticks(last)],
        "lines": [
            {"d": path(line.points, to_x, to_y), "band": band(line, to_x, to_y), "last": last_value(line)}
            for line in lines
        ],
        "hits": [
            {"x": to_x(x) - wide / 2, "width": wide, "hint": f"{unit} {x}\n{hint(x, lines)}"}
            for x in sorted({x for line in lines for x, _ in line.points})
        ],
    }


def last_value(line: Line) -> str:
    """The last number of a line."""
    values = [y for _, y in line.points if known(y)]
    return label(values[-1]) if values else "–"


def hint(x: int, lines: list[Line]) -> str:
    """Each line's value there."""
    values = [(line.name, dict(line.points).get(x)) for line in lines]
    return "\n".join(f"{name}: {label(y)}" for name, y in values if known(y))


def histogram(series: list[tuple[str, list[float]]], classes: list[str]) -> dict[str, Any]:
    """Bars side by side in each bin of the recall, 0..1, one for each of the named series.

    Args:
        series: (name, values in 0..1).
        classes: the style class of each series in the template.
    """
    counts_BS = [[count(values, b) for _, values in series] for b in range(BINS)]
    ys = ticks(0, max(1, *(max(counts_S) for counts_S in counts_BS)))
    wide, thin = (WIDTH - LEFT - RIGHT) / BINS, ((WIDTH - LEFT - RIGHT) / BINS - 4) / len(series)

    def bar(number: int, which: int):
        high = counts_BS[number][which] / ys[-1] * (HEIGHT - TOP - BOTTOM)
        return {
            "x": LEFT + number * wide + 2 + which * thin,
            "width": max(1, thin - 1),
            "y": HEIGHT - BOTTOM - high,
            "height": high,
        }

    def bin_hint(number: int) -> str:
        rows = (f"{name}: {rows} rows" for (name, _), rows in zip(series, counts_BS[number]))
        return f"recall {number / BINS:g} to {(number + 1) / BINS:g}\n" + "\n".join(rows)

    return {
        "y": [(HEIGHT - BOTTOM - v / ys[-1] * (HEIGHT - TOP - BOTTOM), label(v)) for v in ys],
        "x": [(LEFT + b / 10 * (WIDTH - LEFT - RIGHT), f"{b / 10:g}") for b in range(0, 11, 2)],
        "bars": [{"class": name, "of": [bar(b, which) for b in range(BINS)]} for which, name in enumerate(classes)],
        "hits": [{"x": LEFT + b * wide, "width": wide, "hint": bin_hint(b)} for b in range(BINS)],
    }


def count(values: list[float], number: int) -> int:
    """How many values lie in bin `number`; 1.0 belongs to the last one."""
    return sum(min(int(v * BINS + 1e-9), BINS - 1) == number for v in values)
