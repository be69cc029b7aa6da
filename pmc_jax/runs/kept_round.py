"""Which round of a run is exported, judged by the evaluations during the run: a floor for utility, or the best one."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax.errors import UserError

QUALITY, UTILITY = "unlearn_quality", "utility"
Summary = dict[str, Any]  # of an evaluation, as result.json has it


class Bounds(NamedTuple):
    """What the settings ask of a round.

    Attributes:
        stop: the run ends where utility falls below; 0 = it never does.
        best: the utility from which on the best unlearn quality counts; None = the last round is exported.
    """

    stop: float
    best: float | None


def read_bounds(config: ConfigDict, before: Summary) -> Bounds:
    """The bounds of a run. before: of the original model. UserError where it lies below the floor, or has no unlearn
    quality to compare.
    """
    stop = config.guard.min_utility
    if before[UTILITY] < stop:
        raise UserError(f"guard.min_utility={stop}: the original model has a utility of {before[UTILITY]:.1f} only")
    if not config.evaluate.keep_best:
        return Bounds(stop, None)
    if before[QUALITY] is None:
        raise UserError("evaluate.keep_best: no forget answer can be scored, so no round is the best one")
    return Bounds(stop, config.evaluate.keep_best_utility * before[UTILITY])


class KeptRound:
    """Judges the evaluations of a run, and tells in the end which round was kept and why.

    Args:
        bounds: what the settings ask for.
    """

    def __init__(self, bounds: Bounds):
        self.bounds = bounds
        self.best: Summary | None = None
        self.stopped: Summary | None = None

    def recall(self, lines: list[dict[str, Any]]) -> None:
        """Take up what earlier starts of the run have evaluated. lines: of metrics.jsonl."""
        for line in lines:
            if line["kind"] == "evaluation":
                self.judge(line["round"], line)

    def judge(self, number: int, summary: Summary) -> bool | None:
        """What the training is told of round `number` (`Hooks.on_evaluate`)."""
        if summary[UTILITY] < self.bounds.stop:
            self.stopped = {"round": number, UTILITY: summary[UTILITY], "min_utility": self.bounds.stop}
            return False
        if self.bounds.best is None:
            return True if self.bounds.stop else None
        if self.best and self.rank(summary) <= self.rank(self.best):
            return None
        self.best = {"round": number, QUALITY: summary[QUALITY], UTILITY: summary[UTILITY]}
        return True

    def rank(self, summary: Summary) -> tuple[bool, float]:
        """The best round has the highest one: the unlearn quality counts from the floor on, utility below it."""
        is_above = summary[UTILITY] >= self.bounds.best
        return is_above, summary[QUALITY] if is_above else summary[UTILITY]

    def told(self, kept: int) -> dict[str, Any]:
        """What result.json says of it; {} where the last round was kept since nothing else was asked for.

        Args:
            kept: the round that is exported.
        """
        told = {"stopped": self.stopped | {"kept_round": kept}} if self.stopped else {}
        if self.best:
            told["best"] = self.best | {"floor": self.bounds.best, "why": self.why()}
        return told

    def why(self) -> str:
        """Why the best round is the best, in words."""
        best, floor = self.best, f"a utility of {self.bounds.best:.1f} or more"
        if self.rank(best)[0]:
            return f"the best unlearn quality, {best[QUALITY]:.1f}, of the evaluated rounds with {floor}"
        return f"no evaluated round has {floor}; this one comes nearest, with {best[UTILITY]:.1f}"

    def lines(self, kept: int) -> list[str]:
        """What the terminal says of it. kept: the round that is exported."""
        told, stop = [], self.stopped
        if stop:
            told.append(
                f"utility fell to {stop[UTILITY]:.1f} in round {stop['round']}, below guard.min_utility="
                f"{self.bounds.stop}: the run ends with round {kept}, "
                + ("the best one so far" if self.best else "the last one that was not below")
            )
        return told + ([f"round {kept} is exported: {self.why()}"] if self.best else [])
