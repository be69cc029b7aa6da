"""The tables that `pmc-jax evaluate` prints of a result.json."""

from typing import Any

from rich.table import Table

from pmc_jax.evaluate.attacks import PREFILL
from pmc_jax.runs import console

Cells = list[str]


def told(entry: dict[str, Any], digits: int = 3) -> Cells:
    """[mean, interval, rows] of an Interval as a dict."""
    mean, low, high = (entry.get(key) for key in ("mean", "low", "high"))
    interval = "" if low is None else f"{low:.{digits}f} .. {high:.{digits}f}"
    return ["-" if mean is None else f"{mean:.{digits}f}", interval, str(entry["rows"])]


def table(title: str, rows: list[Cells]) -> Table:
    """Lines of [what, value, interval or reason, rows]."""
    found = Table(title=title)
    for heading in ("", "value", "95 % interval", "rows"):
        found.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for row in rows:
        found.add_row(*row)
    return found


def tofu_lines(found: dict[str, Any]) -> list[Cells]:
    """TOFU's metrics by the names of its log."""
    lines = []
    for name, entry in found.items():
        if "/" not in name:
            low, high = entry.get("interval") or (None, None)
            value = f"{entry['value']:.4g}" if entry["value"] is not None else "not computed"
            interval = f"{low:.3f} .. {high:.3f}" if low is not None else entry.get("reason") or entry.get("note", "")
            lines.append([name, value, interval, str(entry["rows"])])
    return lines


def leakage_lines(leaks: dict[str, Any]) -> list[Cells]:
    """Worst of the samples and its bounds, sampled and after a prefilled answer."""
    how = {"sampled": "sampled", "prefilled": f"after {PREFILL!r}"}
    return [
        [f"{title}: {name}", *told(entry)]
        for key, title in how.items()
        for name, entry in leaks[key].get("measures", {}).items()
    ]


def relearning_lines(curves: dict[str, Any]) -> list[Cells]:
    """Recall of the forget answers that were held back, by updates on those that were shown."""
    lines = []
    for key, title in (("model", "this model"), ("retain_model", "retain model")):
        lines += [
            [f"{title}, updates: {look['updates']}", *told(look["held_back"])] for look in curves[key].get("looks", [])
        ]
    return lines


def neighbour_lines(found: dict[str, Any]) -> list[Cells]:
    """Near and far retain rows now, and what changed."""
    lines = []
    for key, title in (("recall", ""), ("change", "change of ")):
        lines += [[f"{title}{name}", *told(entry)] for name, entry in found[key].items() if name != "reason"]
    return lines


def drift_lines(found: dict[str, Any]) -> list[Cells]:
    """Words of the forget answers and other words in unrelated text."""
    lines = []
    for kind, title in (("forget_words", "words of forget answers"), ("other_words", "other words")):
        entry = found[kind]
        spread = "" if entry["std"] is None else f", standard deviation {entry['std']:.4f}"
        lines.append([f"{title}: {entry['words']}{spread}", *told(entry, 4)])
    return lines


def option_lines(found: dict[str, Any]) -> list[Cells]:
    """The least likely option against chance."""
    return [["the least likely option is the secret", *told(found)], ["by chance", f"{found['chance']:.3f}", "", ""]]


TABLES = (
    (
        "tofu",
        "TOFU's metrics, by the names of its evaluation logs (truth ratios: of geometric means over wrong answers)",
        tofu_lines,
    ),
    ("least_likely_option", "Multiple choice of right and wrong answers", option_lines),
    ("leakage", "Leakage of the forget answers in many samples (M_...: bounds at 95 %)", leakage_lines),
    ("relearning", "Relearning: ROUGE-L recall of forget answers held back", relearning_lines),
    ("neighbours", "Retain rows near to the forget set and far from it, ROUGE-L recall", neighbour_lines),
    ("drift", "Change of a word's probability in unrelated text", drift_lines),
)


def reasons(found: dict[str, Any]) -> list[str]:
    """Why a result, or a piece of it that is no metric of a table, is not computed; each reason once."""
    given = [
        found.get("reason"),
        *(piece.get("reason") for piece in found.values() if isinstance(piece, dict) and "value" not in piece),
    ]
    return list(dict.fromkeys(reason for reason in given if reason))


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Print an evaluation's tables, what is not computed and why, and its cost by part. Returns the result."""
    console.console.print(console.table({"model": result["model"]}))
    for key, title, lines in (t for t in TABLES if t[0] in result):
        if "reason" not in result[key] and (rows := lines(result[key])):
            console.console.print(table(title, rows))
        for reason in reasons(result[key]):
            console.console.print(f"{key.replace('_', ' ')}: not computed: {reason}", highlight=False, soft_wrap=True)
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["evaluate_parts"].items() if seconds >= 0.05)
    console.console.print(
        f"seconds by part: {parts}; with loading {result['seconds']['total']:.1f}", highlight=False, soft_wrap=True
    )
    return result
