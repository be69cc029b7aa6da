"""The head of the page: each run's name, its two big numbers, and facts of a few words."""

import statistics
from typing import Any

from pmc_jax.evaluate.recall import CONTENT
from pmc_jax.report.read import Run
from pmc_jax.report.recalls import intervals
from pmc_jax.tracking.progress import clock_time

SPEEDS = {
    "tokens_per_second": "{:,.0f} training tokens a second",
    "answer_tokens_per_second": "{:,.0f} answer tokens a second",
    "mfu": "{:.1%} of the chips' peak in updates",
}


def content_recall(run: Run) -> str:
    """What is left of the facts in the forget answers: now, before, and in a model that never saw them."""
    entries = {
        "now": run.now.get(CONTENT, {}).get("forget"),
        "before": run.before.get(CONTENT, {}).get("forget"),
        "never saw them": run.now.get("never_saw", {}).get(CONTENT),
    }
    return ", ".join(f"{when} {e['mean']:.3f}" for when, e in entries.items() if e and e["mean"] is not None)


def speed(run: Run) -> str:
    """Tokens a second, use of the chips and memory: medians over the rounds, and the peak."""
    told = []
    for key, words in SPEEDS.items():
        values = [r[key] for r in run.rounds if r.get(key) is not None]
        told += [words.format(statistics.median(values))] if values else []
    peaks = [r["peak_memory"] for r in run.rounds if r.get("peak_memory") is not None]
    return ", ".join(told + ([f"{max(peaks) / 2**30:.2f} GiB of memory at most"] if peaks else []))


def headline(run: Run) -> dict[str, Any]:
    """A run's name, its two big numbers before and now, and facts of a few words."""
    frozen = run.frozen["settings"]
    done, best = bool(run.result), run.result.get("best")
    last = run.rounds[best["round"] if best else -1] if run.rounds else {}
    data = frozen.get("data.forget_file") or f"{frozen.get('data.path')} {frozen.get('data.forget')}"
    facts = {
        "Checkpoint": frozen.get("model.path"),
        "Forget": data,
        "Method": frozen.get("method"),
        "Seed": frozen.get("seed"),
    }
    if run.rounds:
        of = "" if frozen.get("train.updates") else f" of {frozen.get('train.epochs')}"
        asked = "" if done else f", in epoch {last['epoch'] + 1}{of}"
        facts["Rounds"] = f"{len(run.rounds)}{asked}"
        if best:
            facts["Exported"] = f"round {best['round']}: {best['why']}"
        if "solved" in last:  # methods that sample nothing solve nothing
            facts["Solved"] = f"{last['solved']:.0%} of the forget questions"
            facts["Sampled"] = f"{sum(r['sampled_tokens'] for r in run.rounds):,} tokens"
    if told := speed(run):
        facts["Speed"] = told
    if told := content_recall(run):
        facts["Content recall of forget answers"] = told
    fluent = [(run.before, "before"), (run.now, "now")]
    medians = [(f"{s['forget_perplexity']['median']:.1f} {when}") for s, when in fluent if "forget_perplexity" in s]
    if medians:
        facts["Perplexity"] = f"{', '.join(medians)}: forget answers under the original model, median"
    if done:
        took = run.result["seconds"]
        first = f", first update after {clock_time(took['first_update'])} min" if "first_update" in took else ""
        facts["Time"] = f"{clock_time(took['total'])} min{first}"
    spans = {stage: intervals(run, stage) for stage in ("before", "now")}
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
