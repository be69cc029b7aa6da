"""What a run writes down after each round: metrics.jsonl, samples/, TensorBoard's events/, and its progress."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tensorboardX import SummaryWriter

from pmc_jax.distributed import multihost
from pmc_jax.tracking.progress import track
from pmc_jax.tracking.workdir import Workdir, write_lines


class RoundRecorder:
    """Writes rounds down in a workdir. Made by `recording`."""

    def __init__(self, work: Workdir, events: SummaryWriter, advance: Any):
        self.work, self.events, self.advance = work, events, advance
        self.evaluated: list[dict[str, Any]] = []

    def write_evaluation(self, number: int, summary: dict[str, Any]) -> None:
        """Write down an evaluation after round `number`. Its line of metrics.jsonl comes with the round's own."""
        self.evaluated.append({"kind": "evaluation", "round": number, **summary})
        told = {name: summary[name] for name in ("unlearn_quality", "utility")}
        told["forget_content_recall"] = summary["content_recall"]["forget"]["mean"]
        for name, value in told.items():
            if value is not None:
                self.events.add_scalar(name, value, number)

    def write_round(self, summary: dict[str, Any], seen: list[dict[str, Any]], updates: list[dict[str, float]]) -> None:
        """Write down a round: its summary, what was sampled, and the losses of its updates."""
        number = summary["round"]
        if "sampled_questions" in summary:  # absent for methods that sample nothing
            write_lines(self.work.file(f"samples/round_{number:05d}.jsonl"), seen)
        lines = [{"kind": "update", "round": number, **losses} for losses in updates]
        lines.append({"kind": "round", **summary})
        self.work.add_metrics(lines + [line for line in self.evaluated if line["round"] == number])
        for name, value in summary.items():
            if isinstance(value, float):
                self.events.add_scalar(name, value, number)
        self.events.flush()
        self.advance(number + 1, progress_note(summary))


@contextlib.contextmanager
def recording(work: Workdir, first: int, total: int) -> Iterator[RoundRecorder]:
    """A recorder for rounds `first` to `total` - 1. What a kill left of rounds from `first` on is dropped."""
    work.drop_metrics_from(first)
    with (
        track("unlearn, rounds", total, first) as advance,
        SummaryWriter(str(work.path / "events"), purge_step=first, write_to_disk=multihost.is_primary()) as events,
    ):
        yield RoundRecorder(work, events, advance)


def progress_note(summary: dict[str, Any]) -> str:
    """What the progress line says of a round."""
    if "solved" in summary:
        return f"solved {summary['solved']:.0%}, score {summary['stored_score']:.2f}"
    return f"loss {summary['loss']:.3f}"
