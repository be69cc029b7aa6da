"""Workdirs -> what the page says -> HTML.

Everything a model, a data file or a setting says is text to the template, which escapes it; the page carries no data
for its script, and lets no script run but its own.
"""

import base64
import functools
import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import jinja2
from rapidfuzz.distance import LCSseq

from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.evaluate import quality
from pmc_jax.methods.rouge import rouge_tokens
from pmc_jax.report.absent import not_measured
from pmc_jax.report.curves import Line, chart, histogram
from pmc_jax.report.measures import measures
from pmc_jax.report.read import Run, read_runs
from pmc_jax.tracking.progress import clock_time

SETS = {
    "forget": "Forget",
    "forget_paraphrased": "Forget, paraphrased",
    "retain": "Retain",
    "world_facts": "World facts",
    "real_authors": "Real authors",
}
FORGET, KEEP = ("forget", "forget_paraphrased"), ("retain", "world_facts", "real_authors")
Segments = list[tuple[str, bool]]


def write(workdirs: list[str | Path], output: str | Path | None = None) -> Path:
    """Write the page of one run, or of several side by side, to `output`, or to report.html in the first workdir."""
    paths = [Path(w) for w in workdirs]
    html = render(context(read_runs(paths)))
    file = Path(output) if output else paths[0] / "report.html"
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_text(html, encoding="utf-8", errors="replace")
        os.replace(partial, file)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be written: {error.strerror}; choose another place with --output=FILE"
        ) from None
    return file


def render(values: dict[str, Any]) -> str:
    """The HTML. A value that the template misspells is an error and no blank."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"number": number, "percent": percent, "digest": digest, "clock_time": clock_time}
    return env.get_template("report.html.j2").render(values)


def digest(script: str) -> str:
    """What the page's security policy knows its own script by."""
    return base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def number(value: float | None, digits: int) -> str:
    """The number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float) -> float:
    """How far along a strip a value lies; what is beyond its ends (a bound may exceed 1) lies at them."""
    return round(100 * min(max(share, 0.0), 1.0), 1)


def context(runs: list[Run]) -> dict[str, Any]:
    """All that the template shows."""
    return {
        "runs": [headline(run) for run in runs],
        "sets": [
            {"title": title, "keep": name in KEEP, "cells": [recall(run, name) for run in runs]}
            for name, title in SETS.items()
        ],
        "charts": charts(runs),
        "histograms": [histograms(run) for run in runs],
        "questions": questions(runs),
        "kept": [kept(run) for run in runs],
        "measures": measures(runs),
        "tofu": rows_of([tofu_cells(run) for run in runs]),
        "seconds": seconds(runs),
        "settings": settings_rows(runs),
        "versions": rows_of([run.frozen.get("versions", {}) for run in runs]),
        "data": rows_of([run.frozen["data"] for run in runs]),
        "absent": not_measured(runs),
    }


def headline(run: Run) -> dict[str, Any]:
    """A run's name, its two big numbers before and now, and facts of a few words."""
    frozen = run.frozen["settings"]
    done, last = bool(run.result), run.rounds[-1] if run.rounds else {}
    data = frozen.get("data.forget_file") or f"{frozen.get('data.path')} {frozen.get('data.forget')}"
    facts = {
        "Checkpoint": frozen.get("model.path"),
        "Forget": data,
        "Method": frozen.get("method"),
        "Seed": frozen.get("seed"),
    }
    if run.rounds:
        asked = "" if done else f", in epoch {last['epoch'] + 1} of {frozen.get('train.epochs')}"
        facts["Rounds"] = f"{len(run.rounds)}{asked}"
        if "solved" in last:  # methods that sample nothing solve nothing
            facts["Solved"] = f"{last['solved']:.0%} of the forget questions"
            facts["Sampled"] = f"{sum(r['sampled_tokens'] for r in run.rounds):,} tokens"
    if done:
        took = run.result["seconds"]
        first = f", first update after {clock_time(took['first_update'])} min" if "first_update" in took else ""
        facts["Time"] = f"{clock_time(took['total'])} min{first}"
    spans = {when: intervals(run, when) for when in ("before", "now")}
    big = [
        {
            "title": title,
            "now": run.now.get(key),
            "before": run.before.get(key),
            "interval": spans["now"].get(key),
            "was": spans["before"].get(key),
        }
        for key, title in (("unlearn_quality", "Unlearn quality"), ("utility", "Utility"))
    ]
    return {
        "name": run.name,
        "path": str(run.path),
        "done": done,
        "big": big,
        "facts": facts,
        "alone": run.frozen["verb"] == "evaluate",
    }


def values(run: Run, when: str, name: str) -> list[float]:
    """The per-row ROUGE-L recall of a set, "before" or "now"."""
    return [row["rouge_l_recall"] for row in run.answers[when] if row["set"] == name]


def intervals(run: Run, when: str) -> dict[str, tuple[float, float] | None]:
    """Bootstrap 95 % intervals of the recalls, unlearn quality and utility, from the answers "before" or "now"; {}
    where there are none.
    """
    recalls = {name: found for name in SETS if (found := values(run, when, name))}
    return quality.summarise(recalls)["intervals"] if "forget" in recalls else {}


def around(mean: float | None, spread: float | None) -> tuple[float | None, float | None]:
    """One spread below and above."""
    return (None, None) if mean is None or spread is None else (mean - spread, mean + spread)


def recall(run: Run, name: str) -> dict[str, Any] | None:
    """Mean recall of a set before and now, with intervals and the number of rows; None where it was not evaluated."""
    means = {"before": run.before.get(name), "now": run.now.get(name)}
    if means["before"] is None and means["now"] is None:
        return None
    spans = {
        when: {"mean": mean, "interval": intervals(run, when).get(name)}
        for when, mean in means.items()
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


def charts(runs: list[Run]) -> list[dict[str, Any]]:
    """The curves over rounds, those that have values."""

    def lines(key: str, spread: str | None = None) -> list[Line]:
        measured = [(run.name, [r for r in run.rounds if r.get(key) is not None]) for run in runs]
        return [
            Line(name, [(r["round"], r[key]) for r in rows], [around(r[key], r.get(spread)) for r in rows])
            for name, rows in measured
        ]

    if not any(run.rounds for run in runs):
        return []
    found = [
        chart("Unlearn quality", "evaluated during the run", lines("unlearn_quality"), 100.0),
        chart("Utility", "evaluated during the run", lines("utility"), 100.0),
        chart("Forget loss", "on the answers trained on", lines("forget_loss")),
        chart("Retain loss", "on the data that must stay", lines("retain_loss")),
        chart("Reward", "of whole samples, mean ± standard deviation", lines("reward_mean", "reward_std"), 1.0),
        chart("Stored score", "likeness of kept to original answers", lines("stored_score"), 1.0),
        chart("Solved", "questions whose kept answer scores 0", lines("solved"), 1.0),
        chart("Sampled tokens", "solved questions are not sampled again", lines("sampled_tokens")),
    ]
    return [c for c in found if c]


@functools.cache
def tokens(word: str) -> tuple[str, ...]:
    """What ROUGE makes of a word: a stemmed token; none or several where it holds letters beyond a-z."""
    return tuple(rouge_tokens(word))


def counted(answer: str, truth: str) -> Segments:
    """The answer in pieces, and whether ROUGE-L counts the piece as held by the truth (their longest common
    subsequence).
    """
    pieces = re.findall(r"\w+|\W+", answer)
    at = [(i, t) for i, piece in enumerate(pieces) for t in tokens(piece)]
    blocks = LCSseq.opcodes([t for _, t in at], rouge_tokens(truth))
    held = {at[k][0] for b in blocks if b.tag == "equal" for k in range(b.src_start, b.src_end)}
    # The gap between two counted words is marked with them: a phrase reads as one.
    marks = [i in held or (i - 1 in held and i + 1 in held) for i in range(len(pieces))]
    return [
        ("".join(piece for piece, _ in group), mark)
        for mark, group in itertools.groupby(zip(pieces, marks), key=lambda pair: pair[1])
    ]


def by_question(rows: list[dict[str, Any]], sets: tuple[str, ...]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Rows of some sets by (set, question, how many times it stood before): how runs, and before and now, are put
    beside each other.
    """
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows:
        if row["set"] in sets:
            again = 0
            while (row["set"], row["question"], again) in found:
                again += 1
            found[row["set"], row["question"], again] = row
    return found


def distinct(texts: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """[(run, text)] -> each different text once, with the runs it belongs to; no runs named when all have the same."""
    found: dict[str, Any] = {}
    for run, text in texts:
        found.setdefault(json.dumps(text), {"runs": [], "text": text})["runs"].append(run)
    return [f if len(found) > 1 else f | {"runs": []} for f in found.values()]


def questions(runs: list[Run]) -> list[dict[str, Any]]:
    """The forget questions and their paraphrases, those of which most is left first."""
    before, now = ([by_question(run.answers[when], FORGET) for run in runs] for when in ("before", "now"))
    keys = dict.fromkeys(key for found in (*before, *now) for key in found)
    rows = [question(key, runs, [b.get(key) for b in before], [n.get(key) for n in now]) for key in keys]
    return sorted(rows, key=lambda row: -row["most"])


def question(
    key: tuple[str, str, int], runs: list[Run], before: list[dict | None], now: list[dict | None]
) -> dict[str, Any]:
    """One row of the table: what all runs share, and a cell for each run."""
    truths = [(run.name, row["truth"]) for run, b, n in zip(runs, before, now) if (row := n or b)]
    originals = [(run.name, counted(b["answer"], b["truth"])) for run, b in zip(runs, before) if b]
    cells = [
        {
            "before": b and b["rouge_l_recall"],
            "now": n and n["rouge_l_recall"],
            "answer": n and counted(n["answer"], n["truth"]),
            "kept": run.kept.get(key[1], []) if key[0] == "forget" else [],
        }
        for run, b, n in zip(runs, before, now)
    ]
    measured = [n for n in now if n] or [b for b in before if b]
    shared = {
        "set": key[0],
        "title": SETS[key[0]],
        "question": key[1],
        "truths": distinct(truths),
        "originals": distinct(originals),
    }
    return shared | {"cells": cells, "most": max(row["rouge_l_recall"] for row in measured)}


def kept(run: Run) -> dict[str, Any]:
    """How many answers to what must stay are word for word as before, and the others, those that lost most first."""
    before, now = (by_question(run.answers[when], KEEP) for when in ("before", "now"))
    pairs = [(before[key], now[key]) for key in before if key in now]
    changed = [changed_answer(b, n) for b, n in pairs if b["answer"] != n["answer"]]
    counts = [
        (title, [b["answer"] == n["answer"] for b, n in pairs if b["set"] == name])
        for name, title in SETS.items()
        if name in KEEP
    ]
    return {
        "counts": [{"title": title, "kept": sum(same), "rows": len(same)} for title, same in counts if same],
        "changed": sorted(changed, key=lambda c: c["scores"][1] - c["scores"][0]),
    }


def changed_answer(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """One answer that is another now."""
    return {
        "title": SETS[now["set"]],
        "question": now["question"],
        "truth": now["truth"],
        "before": counted(before["answer"], before["truth"]),
        "now": counted(now["answer"], now["truth"]),
        "scores": (before["rouge_l_recall"], now["rouge_l_recall"]),
    }


def tofu_cells(run: Run) -> dict[str, str]:
    """TOFU's metrics of an evaluation, in words: value, interval, rows, or why there is none."""
    tofu, found = run.result.get("tofu", {}), {}
    if "reason" in tofu:
        return {"all": f"not computed: {tofu['reason']}"}
    for name, entry in tofu.items():
        if "/" not in name:
            low, high = entry.get("interval") or (None, None)
            span = f" [{low:.3f} .. {high:.3f}]" if low is not None else ""
            note = f" ({entry['note']})" if "note" in entry else ""
            found[name] = (
                f"not computed: {entry['reason']}"
                if entry["value"] is None
                else f"{entry['value']:.4g}{span}, {entry['rows']} rows{note}"
            )
    return found


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
