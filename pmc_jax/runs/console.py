"""What a run prints: tables of before and after, and where everything lies."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pmc_jax.evaluate.quality import SETS
from pmc_jax.tracking.workdir import Workdir, read_lines

LIKE = 0.9  # score of the answers kept at the end: where it is higher, the settings did not suit the model
console, stderr = Console(), Console(stderr=True)


def table(results: dict[str, dict[str, Any]]) -> Table:
    """A table of evaluation summaries, one column each, with bootstrap 95 % intervals."""
    answers = Table(title="ROUGE-L recall of greedy answers (0..1), unlearn quality and utility (0..100)")
    for heading in ("", *results, "rows"):
        answers.add_column(heading, justify="left" if not heading else "right")
    rows = next(iter(results.values()))["rows"]
    for name in (*SETS, "unlearn_quality", "utility"):
        digits = 1 if name in ("unlearn_quality", "utility") else 3
        answers.add_row(
            name.replace("_", " "), *(cell(r, name, digits) for r in results.values()), str(rows.get(name, ""))
        )
    return answers


def cell(summary: dict[str, Any], name: str, digits: int) -> str:
    """A mean of an evaluation summary with its interval."""
    if summary[name] is None:
        return "not evaluated"
    span = summary.get("intervals", {}).get(name)
    return f"{summary[name]:.{digits}f}" + (f" [{span[0]:.{digits}f}, {span[1]:.{digits}f}]" if span else "")


def print_result(work: Workdir, result: dict[str, Any]) -> None:
    """The before/after table, the seconds, and where everything lies."""
    console.print(table({"before": result["before"], "after": result["after"]}))
    if result["after"]["forget_truth"] != "ground truth":
        console.print(
            "The forget file has no answers: forget rows are measured against the original model's own answers."
        )
    if result.get("stored_score", 0.0) > LIKE:
        console.print(
            "Next to nothing was forgotten: the answers that were kept are the original ones, or all but those. A "
            "higher sample.temperature, more "
            "sample.num_samples, a higher train.learning_rate or more train.epochs draw the model away; samples/ has "
            "what was drawn.",
            style="bold",
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    console.print(f"seconds: {seconds}", highlight=False)
    files = {"checkpoint": "hf", "answers": "answers", "result": "result.json", "report": "report.html"}
    console.print("   ".join(f"{what}: {work.path / name}" for what, name in files.items()), soft_wrap=True)


def print_finished(work: Workdir) -> None:
    """That there is nothing to do, and where the result lies."""
    result = work.path / "result.json"
    console.print(f"{work.path} holds this run, finished; nothing was changed. Its result: {result}")


def examples(work: Path, count: int = 3) -> list[dict[str, str]]:
    """Forget questions with the answer before, the answer now and the truth, spread over the forget set."""
    before, after = (
        [a for a in read_lines(work / "answers" / f"{when}.jsonl") if a["set"] == "forget"]
        for when in ("before", "after")
    )
    step = max(1, len(before) // count)
    picked = list(zip(before, after))[::step][:count]
    return [
        {"question": b["question"], "before": b["answer"], "after": a["answer"], "truth": b["truth"]} for b, a in picked
    ]
