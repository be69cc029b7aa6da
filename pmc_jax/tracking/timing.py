"""Seconds by phase, with XLA's compile time taken out of the phase it happened in."""

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

from pmc_jax.tracking.log import log

PHASES = ("load", "compile", "sample", "score", "update", "save", "evaluate")


class Clock:
    """Adds up seconds by phase. Used as a context (that may nest) for as long as it listens to JAX's compile events."""

    def __init__(self, seconds: dict[str, float] | None = None):
        self.seconds = dict.fromkeys(PHASES, 0.0) | (seconds or {})
        self._entered = 0
        self._compiled: list[tuple[float, float]] = []  # disjoint (start, seconds) of compile events, in order
        self._thread = threading.get_ident()  # what other threads compile meanwhile takes no time here

    def __enter__(self) -> "Clock":
        if not self._entered:
            jax.monitoring.register_event_duration_secs_listener(self._on_event)
        self._entered += 1
        return self

    def __exit__(self, *_) -> None:
        self._entered -= 1
        if not self._entered:
            jax.monitoring.unregister_event_duration_listener(self._on_event)

    def _on_event(self, event: str, seconds: float, **_) -> None:
        if event.startswith("/jax/core/compile/") and threading.get_ident() == self._thread:
            start = time.perf_counter() - seconds
            # Events nest (a trace within a trace) and are told inner first: the outer one replaces those that began
            # within it.
            while self._compiled and self._compiled[-1][0] >= start:
                self._compiled.pop()
            self._compiled.append((start, seconds))

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time spent inside is booked to `name`, compilation inside to "compile". Phases do not nest."""
        log(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            compile_seconds = sum(seconds for begun, seconds in self._compiled if begun >= start)
            self._compiled.clear()
            self.seconds["compile"] += compile_seconds
            self.seconds[name] += time.perf_counter() - start - compile_seconds

    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds[p] for p in PHASES)
