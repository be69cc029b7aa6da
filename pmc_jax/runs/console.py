"""What a run prints at its end: tables of results, what is not computed, and where everything lies."""

from pathlib import Path
from typing import Any

from rich.console import Console

from pmc_jax.evaluate import views
from pmc_jax.evaluate.lines import Table
from pmc_jax.runs.tables import rich_table
from pmc_jax.tracking.files import read_lines
from pmc_jax.tracking.workdir import Workdir

LIKE = 0.9  # score of the answers kept at the end: where it is higher, the settings did not suit the model
console, stderr = Console(), Console(stderr=True)


def print_tables(tables: dict[str, Table]) -> None:
    """Print every result's table, and what is not computed and why."""
    for key, table in tables.items():
        if table.lines:
            console.print(rich_table(table.title, table.note, {"value": table.lines}), highlight=False)
        for reason in table.reasons:
            text = f"{key.replace('_', ' ')}: not computed: {reason}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_result(work: Workdir, result: dict[str, Any]) -> None:
    """Print the table of before and after, the seconds, and where everything lies."""
    columns = {name: views.SUMMARY.lines(result[name]) for name in ("before", "after")}
    console.print(rich_table(views.SUMMARY.title, views.SUMMARY.note, columns), highlight=False)
    if result["after"]["forget_truth"] != "ground truth":
        console.print(
            "The forget file has no answers: forget rows are measured against the original model's own answers."
        )
    if result.get("stored_score", 0.0) > LIKE:
        console.print(
            "Next to nothing was forgotten: the answers that were kept are the original ones, or all but those. A "
            "higher sample.temperature, more sample.num_samples, a higher train.learning_rate or more train.epochs "
            "draw the model away; samples/ has what was drawn.",
            style="bold",
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    console.print(f"seconds: {seconds}", highlight=False)
    files = {"checkpoint": "hf", "answers": "answers", "result": "result.json", "report": "report.html"}
    console.print("   ".join(f"{title}: {work.path / name}" for title, name in files.items()), soft_wrap=True)


def print_finished(work: Workdir) -> None:
    """Say that a run is finished and where its result is."""
    result = work.path / "result.json"
    console.print(f"{work.path} holds this run, finished; nothing was changed. Its result: {result}")


def examples(work: Path, count: int = 3) -> list[dict[str, str]]:
    """Forget questions with the answer before, the answer now and the truth, spread over the forget set."""
    before, after = (
        [row for row in read_lines(work / "answers" / f"{name}.jsonl") if row["set"] == "forget"]
        for name in ("before", "after")
    )
    step = max(1, len(before) // count)
    pairs = list(zip(before, after))[::step][:count]
    return [
        {"question": b["question"], "before": b["answer"], "after": a["answer"], "truth": b["truth"]} for b, a in pairs
    ]
