"""What a run writes down after each round: metrics.jsonl, samples/, TensorBoard's events/, and its progress."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from pmc_jax.distributed import multihost
from pmc_jax.errors import telling_file_errors
from pmc_jax.tracking.files import write_lines
from pmc_jax.tracking.progress import track
from pmc_jax.tracking.workdir import Workdir


class Events:
    """TensorBoard's events of one start of a run, numbers only. Written at once: the library's own writer has a thread
    that a full disk ends without a word, and the run waits for it for ever.
    """

    def __init__(self, work: Workdir, first: int):
        self.folder, self._writer = work.file("events/x").parent, None
        if multihost.is_primary():
            with telling_file_errors(self.folder):
                self._writer = EventsWriter(str(self.folder / "events"))
            # What a kill left of rounds from the first on is not shown.
            self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, number: int, values: dict[str, float]) -> None:
        """Write values of round `number`."""
        shown = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=number, summary=Summary(value=shown)))

    def _write(self, event: Event) -> None:
        if self._writer:
            with telling_file_errors(self.folder):
                self._writer.write_event(event)
                self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer:
            with contextlib.suppress(OSError):  # everything was written before
                self._writer.close()


class RoundRecorder:
    """Writes rounds down in a workdir. Made by `recording`.

    Args:
        work: the run's folder.
        total: rounds of the whole run.
        keep_samples: whether what was sampled is written down.
    """

    def __init__(self, work: Workdir, total: int, keep_samples: bool):
        self.work, self.total, self.keep_samples = work, total, keep_samples
        self.evaluated: list[dict[str, Any]] = []
        self.stack = contextlib.ExitStack()

    def begin(self, first: int) -> None:
        """Make ready for rounds from `first` on. What a kill left of them is dropped."""
        self.work.drop_metrics_from(first)
        self.advance = self.stack.enter_context(track("unlearn, rounds", self.total, first))
        self.events = Events(self.work, first)
        self.stack.callback(self.events.close)

    def write_evaluation(self, number: int, summary: dict[str, Any]) -> None:
        """Write down an evaluation after round `number`. Its line of metrics.jsonl comes with the round's own."""
        self.evaluated = [{"kind": "evaluation", "round": number, **summary}]
        told = {name: summary[name] for name in ("unlearn_quality", "utility")}
        told["forget_content_recall"] = summary["content_recall"]["forget"]["mean"]
        self.events.add(number, {name: value for name, value in told.items() if value is not None})

    def write_round(
        self,
        summary: dict[str, Any],
        seen: list[dict[str, Any]],
        updates: list[dict[str, float]],
        speed: dict[str, float | None],
    ) -> None:
        """Write down a round: its summary, what was sampled, the losses of its updates, and its speed."""
        number = summary["round"]
        if "sampled_questions" in summary and self.keep_samples:  # absent for methods that sample nothing
            write_lines(self.work.file(f"samples/round_{number:05d}.jsonl"), seen)
        lines = [{"kind": "update", "round": number, **losses} for losses in updates]
        lines.append({"kind": "round", **summary, "speed": speed})
        self.work.add_metrics(lines + [line for line in self.evaluated if line["round"] == number])
        told = summary | {f"speed/{name}": value for name, value in speed.items()}
        self.events.add(number, {name: value for name, value in told.items() if isinstance(value, float)})
        self.advance(number + 1, progress_note(summary))


@contextlib.contextmanager
def recording(work: Workdir, total: int, keep_samples: bool) -> Iterator[RoundRecorder]:
    """A recorder for the rounds of a run."""
    recorder = RoundRecorder(work, total, keep_samples)
    with recorder.stack:
        yield recorder


def progress_note(summary: dict[str, Any]) -> str:
    """What the progress line says of a round."""
    if "solved" in summary:
        return f"solved {summary['solved']:.0%}, score {summary['stored_score']:.2f}"
    return f"loss {summary['loss']:.3f}"
