"""Progress with time left: a bar on a terminal, a line every ten seconds elsewhere."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator

from pmc_jax.distributed import multihost

SECONDS_BETWEEN_LINES = 10


@functools.cache
def say_once(note: str) -> None:
    """Print a note on stderr, by the first process of the run and the first time that it comes up."""
    if multihost.is_primary():
        print(f"pmc-jax: {note}", file=sys.stderr, flush=True)


def clock_time(seconds: float) -> str:
    """m:ss"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextlib.contextmanager
def track(what: str, total: int, first: int = 0, show: bool = True) -> Iterator[Callable[..., None]]:
    """Yields advance(done, note=""): `done` is the number of finished units so far, of `total`. first: units that an
    earlier run had finished.

    Shown by the first process of the run.
    """
    if not (show and multihost.is_primary()):
        yield lambda done, note="": None
    elif sys.stderr.isatty():
        yield from _bar(what, total, first)
    else:
        start = last = time.monotonic()

        def advance(done: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES or (done == total and last != start):
                last = now
                left = (now - start) / max(1, done - first) * (total - done)
                print(
                    f"{what}: {done}/{total}, {clock_time(now - start)} gone, {clock_time(left)} left {note}".rstrip(),
                    file=sys.stderr,
                    flush=True,
                )

        yield advance


def _bar(what: str, total: int, first: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=first, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)
