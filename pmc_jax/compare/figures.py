"""The figures of a comparison, by matplotlib, which is imported when they are drawn (`pip install 'pmc-jax[figures]'`).

Each is a function from results.json to a figure, None where nothing of it was measured. Colours stay with their rows.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

from pmc_jax.compare.summary import Results, chosen_points, mean_of

WIDTH, HEIGHT = 7.2, 4.4  # inches
MARKS = "osD^vP*X<>phd"
NEVER_SAW = "never saw it"
GREY = "0.6"
QUALITY, UTILITY = ("unlearn_quality", "unlearn quality"), ("utility", "utility")


class Drawing(NamedTuple):
    """A figure: its name as a file, its title, and the function that draws it."""

    name: str
    title: str
    draw: Callable[[Results], Any]


def blank(panels: int = 1, height: float = HEIGHT) -> tuple[Any, list[Any]]:
    """A figure with panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH if panels == 1 else 1.5 * WIDTH, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, list(axes)


def style(results: Results) -> dict[str, dict[str, Any]]:
    """{row: colour and mark}, the same in all figures."""
    from matplotlib import colormaps

    names = [row["name"] for row in results["rows"]]
    colours = colormaps["tab20"].colors
    return {n: {"color": colours[i % 20], "marker": MARKS[i % len(MARKS)]} for i, n in enumerate(names)}


def scatter(axis: Any, results: Results, x: tuple[str, str], y: tuple[str, str]) -> None:
    """Every point that was tried, faint; the chosen ones with their spread."""
    looks, chosen = style(results), chosen_points(results)
    for row in results["rows"]:
        for point in row["points"]:
            here = mean_of(point, x[0], y[0])
            if None not in here:
                axis.plot(*here, linestyle="", markersize=4, alpha=0.3, **looks[row["name"]])
    for name, point in chosen.items():
        here = mean_of(point, x[0], y[0])
        if None in here:
            continue
        std = [point["measures"][key]["std"] or 0 for key in (x[0], y[0])]
        spread = {"xerr": std[0], "yerr": std[1], "elinewidth": 0.8}
        axis.errorbar(*here, linestyle="", markersize=7, label=name, **spread, **looks[name])
    axis.set_xlabel(x[1])
    axis.set_ylabel(y[1])


def quality_against_utility(results: Results) -> Any:
    """Unlearn quality against utility, with the Pareto front and the floor; at the right what keeps the utility."""
    figure, axes = blank(2, height=5.2)
    points = {(row["name"], point["point"]): point for row in results["rows"] for point in row["points"]}
    front = [mean_of(points[tuple(key)], "utility", "unlearn_quality") for key in results["pareto_front"]]
    start = results["start"]["utility"], results["start"]["unlearn_quality"]
    least, floor = results["floor"] / 100 * start[0], f"{results['floor']:g} % of the start's utility"
    for axis in axes:
        scatter(axis, results, UTILITY, QUALITY)
        axis.step(*zip(*front), where="pre", color="0.3", linewidth=1, linestyle="--", label="Pareto front", zorder=0)
        axis.plot(*start, marker="*", color="black", markersize=11, linestyle="", label="start")
        axis.axvline(least, color=GREY, linewidth=1, linestyle=":", label=floor)
    axes[1].set_xlim(least - (start[0] - least) / 4, start[0] + (start[0] - least) / 2)
    beside(figure, axes)
    return figure


def beside(figure: Any, axes: list[Any]) -> None:
    """One legend of all panels at the right, where no point lies."""
    shown = {}
    for axis in axes:
        shown |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(shown.values(), shown.keys(), loc="outside right upper", fontsize=7, frameon=False)


def against_seconds(results: Results) -> Any:
    """Unlearn quality and utility against the seconds of training."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = blank(2)
    for axis, measure in zip(axes, (QUALITY, UTILITY)):
        scatter(axis, results, ("training_seconds", "seconds of training"), measure)
        axis.axhline(results["start"][measure[0]], color=GREY, linewidth=1, linestyle=":", label="start")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    beside(figure, axes)
    return figure


def by_row(results: Results) -> Any:
    """Unlearn quality and utility of each row's chosen point."""
    return bars(results, {"unlearn_quality": "unlearn quality", "utility": "utility"}, "0 to 100")


def bars(results: Results, measures: dict[str, str], label: str, chance: float | None = None) -> Any:
    """Bars side by side for each row, with their spread; a line for the model that never saw the forget data.

    Args:
        results: of the comparison.
        measures: {measure: what its bars are called}.
        label: of the axis.
        chance: a level to compare with; None = there is none.
    """
    chosen = {
        name: point
        for name, point in chosen_points(results).items()
        if any(value is not None for value in mean_of(point, *measures))
    }
    if not chosen:
        return None
    figure, (axis,) = blank()
    thick, never_saw = 0.8 / len(measures), results["yardsticks"].get(NEVER_SAW)
    for i, (key, title) in enumerate(measures.items()):
        values = [point["measures"].get(key) or {"mean": None, "std": None} for point in chosen.values()]
        places = [place + (i - (len(measures) - 1) / 2) * thick for place in range(len(chosen))]
        heights, errors = [v["mean"] or 0 for v in values], [v["std"] or 0 for v in values]
        colour = f"C{i}"
        axis.bar(places, heights, thick, yerr=errors, label=title, color=colour, error_kw={"elinewidth": 0.8})
        level = never_saw and mean_of(never_saw, key)[0]
        if level is not None and never_saw:
            axis.axhline(level, color=colour, linewidth=1, linestyle="--", label=f"{title}, never saw it")
    if chance is not None:
        axis.axhline(chance, color=GREY, linewidth=1, linestyle=":", label="chance")
    axis.set_xticks(range(len(chosen)), chosen, rotation=45, ha="right", fontsize=8)
    axis.set_ylabel(label)
    axis.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(measures), frameon=False)
    return figure


def leakage(results: Results) -> Any:
    """Recall of the secret in greedy, sampled and prefilled answers."""
    names = {"leak_greedy": "greedy", "leak_sampled": "worst sample", "leak_prefilled": "worst sample after a start"}
    return bars(results, names, "recall of the forget answers") if "leak_sampled" in measured(results) else None


def multiple_choice(results: Results) -> Any:
    """How often the secret is the least likely option."""
    points = chosen_points(results).values()
    chance = next((point["chance"] for point in points if point["chance"] is not None), None)
    return bars(results, {"least_likely": "the secret is the least likely option"}, "share of the questions", chance)


def drift(results: Results) -> Any:
    """Change of the probability of words in unrelated text."""
    names = {"drift_forget": "words of the forget answers", "drift_other": "other words"}
    return bars(results, names, "change of a word's probability")


def relearning(results: Results) -> Any:
    """Recall of the answers held back, by updates of the relearning attack."""
    curves = {name: point["relearning"] for name, point in chosen_points(results).items()}
    return lines(results, curves, "recall", "updates of the attack", "recall of the answers held back")


def course(results: Results) -> Any:
    """Unlearn quality and utility during the runs."""
    curves = {name: point["course"] for name, point in chosen_points(results).items()}
    return lines(results, curves, "unlearn_quality utility", "updates", "unlearn quality / utility")


def lines(results: Results, curves: dict[str, list[dict[str, float]]], keys: str, x: str, y: str) -> Any:
    """Curves over updates, a panel for each of the keys; the model that never saw the forget data beside them."""
    if not any(curves.values()):
        return None
    looks, panels = style(results), list(zip(keys.split(), y.split(" / ")))
    figure, axes = blank(len(panels))
    for axis, (key, label) in zip(axes, panels):
        for name, curve in curves.items():
            if curve:
                axis.plot(
                    [look["updates"] for look in curve],
                    [look[key] for look in curve],
                    label=name,
                    markersize=4,
                    **looks[name],
                )
        known = results["yardsticks"].get(NEVER_SAW, {}).get("relearning") or []
        if known and key in known[0]:
            updates, values = zip(*((look["updates"], look[key]) for look in known))
            axis.plot(updates, values, color="black", linestyle="--", label=NEVER_SAW)
        axis.set_xlabel(x)
        axis.set_ylabel(label)
    beside(figure, axes)
    return figure


def measured(results: Results) -> set[str]:
    """The measures that any chosen point has."""
    return {key for point in chosen_points(results).values() for key in point["measures"]}


DRAWINGS = (
    Drawing("quality_utility", "Unlearn quality against utility", quality_against_utility),
    Drawing("seconds", "Unlearn quality and utility against seconds of training", against_seconds),
    Drawing("rows", "Unlearn quality and utility of the chosen points", by_row),
    Drawing("course", "Unlearn quality and utility during the runs", course),
    Drawing("leakage", "What leaks of the secret", leakage),
    Drawing("multiple_choice", "Multiple-choice attack", multiple_choice),
    Drawing("drift", "Drift of words in unrelated text", drift),
    Drawing("relearning", "Relearning", relearning),
)


def draw_all(results: Results) -> dict[str, tuple[str, bytes]]:
    """{name of the figure: (title, its SVG)}, the same bytes for the same results; {} where nothing is chosen yet.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    drawn = {}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pmc-jax", "font.family": "sans-serif"}):
        for drawing in DRAWINGS if chosen_points(results) else ():
            figure = drawing.draw(results)
            if figure is not None:
                out = io.BytesIO()
                figure.savefig(out, format="svg", metadata={"Date": None})
                drawn[drawing.name] = (drawing.title, out.getvalue())
    return drawn
