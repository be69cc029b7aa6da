"""Curves over the rounds of a run."""

from typing import Any

from pmc_jax.report.curves import Line, chart
from pmc_jax.report.read import Run


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
    drawn = [
        chart("Unlearn quality", "evaluated during the run", lines("unlearn_quality"), 100.0),
        chart("Utility", "evaluated during the run", lines("utility"), 100.0),
        chart("Forget content recall", "evaluated during the run", lines("forget_content_recall"), 1.0),
        chart("Forget loss", "on the answers trained on", lines("forget_loss")),
        chart("Retain loss", "on the data that must stay", lines("retain_loss")),
        chart("Reward", "of whole samples, mean ± standard deviation", lines("reward_mean", "reward_std"), 1.0),
        chart("Stored score", "likeness of kept to original answers", lines("stored_score"), 1.0),
        chart("Solved", "questions whose kept answer scores 0", lines("solved"), 1.0),
        chart("Sampled tokens", "solved questions are not sampled again", lines("sampled_tokens")),
        chart("Training tokens a second", "of the updates, without padding", lines("tokens_per_second")),
        chart("Answer tokens a second", "of sampling", lines("answer_tokens_per_second")),
        chart("Model FLOPs utilisation", "of the updates, share of the chips' peak", lines("mfu"), 1.0),
    ]
    return [c for c in drawn if c]


def around(mean: float | None, spread: float | None) -> tuple[float | None, float | None]:
    """One spread below and above."""
    return (None, None) if mean is None or spread is None else (mean - spread, mean + spread)
