"""The runs and evaluations of a comparison in its folder, each a workdir of its own.

The same command goes on where it was stopped, and several processes may share the work.
"""

import contextlib
import functools
import gc
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.compare.measures import Measured, of_model, read_run
from pmc_jax.compare.summary import Asked, Point, Results, chosen_points, summarise
from pmc_jax.errors import UserError, explain
from pmc_jax.runs.cells import Cell, Plan, folder_of, label
from pmc_jax.runs.console import console
from pmc_jax.runs.evaluate import run_evaluate
from pmc_jax.runs.unlearn import unlearn
from pmc_jax.tracking.files import read_json, write_json
from pmc_jax.tracking.locks import Lock
from pmc_jax.tracking.workdir import Workdir, started_with

START, NEVER_SAW = "the start", "never saw it"  # yardsticks
FOLDERS = {START: "start", NEVER_SAW: "never_saw"}

T = TypeVar("T")


class Share(NamedTuple):
    """Which of the runs a process does: every `of`-th from `number` on."""

    number: int
    of: int


class Comparison:
    """A comparison in its folder.

    Args:
        plan: what is run.
        workdir: the folder.
        share: which runs this process does; None = all.
    """

    def __init__(self, plan: Plan, workdir: Path, share: Share | None):
        self.plan, self.workdir, self.share = plan, workdir, share

    def check(self) -> None:
        """UserError where a folder of a run holds one with other settings."""
        for cell in self.plan.cells.values():
            work = Workdir(str(folder_of(self.workdir, cell)))
            if work.frozen():
                work.check(started_with("unlearn", cell.config, None))
        for name, config in self.evaluation_settings.items():
            work = Workdir(str(self.evaluation(name)))
            if work.frozen():
                work.check(started_with("evaluate", config, None)._replace(checkpoints={}))

    def run(self) -> None:
        """The yardsticks, which evaluations of runs wait for; every run that is wanted and not there; evaluations."""
        if self.plan.measured:
            self.measure(self.own(name for name in FOLDERS.values() if name in self.evaluation_settings), [])
        self.train_all(self.tuning_cells())
        chosen = self.chosen_cells()
        self.train_all(chosen)
        self.measure([cell.name for cell in self.own(self.to_measure(chosen)) if self.is_done(cell)], chosen)
        self.drop_exports(chosen)

    def train_all(self, cells: list[Cell]) -> None:
        """Those of the runs that are this process's, and not there."""
        own = self.own(cells)
        for i, cell in enumerate(own, 1):
            if not self.is_done(cell):
                folder, work = folder_of(self.workdir, cell), functools.partial(self.train, cell)
                self.attempt(cell.name, folder, work, f"run {i} of {len(own)}")
                if own[i : i + 1] and own[i].row != cell.row:
                    let_programs_go()

    def own(self, work: Iterable[T]) -> list[T]:
        """Those pieces of work that this process does."""
        number, of = self.share or (0, 1)
        return list(work)[number::of]

    def tuning_cells(self) -> list[Cell]:
        """The runs that points are chosen by."""
        return [cell for cell in self.plan.cells.values() if cell.seed in self.plan.tuning]

    def chosen_cells(self) -> list[Cell]:
        """All runs of the chosen points, of rows whose tuning is over."""
        chosen = chosen_points(self.results())
        cells = self.plan.cells.values()
        open_rows = {c.row for c in self.tuning_cells() if not self.is_done(c) and not self.failure(c.name)}
        return [c for c in cells if c.row in chosen.keys() - open_rows and c.point == chosen[c.row]["point"]]

    def is_done(self, cell: Cell) -> bool:
        """Whether a run is finished."""
        return (folder_of(self.workdir, cell) / "result.json").exists()

    def failure(self, name: str) -> str | None:
        """Why a run or an evaluation failed when it was last tried; None where it did not."""
        return (read_json(self.workdir / "failed" / f"{name}.json") or {}).get("why")

    def attempt(self, name: str, folder: Path, work: Callable[[], str], count: str) -> None:
        """Do a piece of work, unless another process is at it in its folder, and say so.

        Where it fails, why is written down, and the others go on.
        """
        file, said = self.workdir / "failed" / f"{name}.json", "another process is at it"
        if not is_taken(folder):
            try:
                with quietly():
                    said = work()
                file.unlink(missing_ok=True)
            except Exception as error:  # whatever ends one run; the others are runs of their own
                said = f"failed: {explain(error)[1]}"
                file.parent.mkdir(exist_ok=True)
                write_json(file, {"why": said.removeprefix("failed: ")})
        console.print(f"{count}: {name}: {said}", highlight=False, markup=False, soft_wrap=True)

    def train(self, cell: Cell) -> str:
        """One run of `unlearn`. Its saved rounds go when it is finished."""
        folder = folder_of(self.workdir, cell)
        result = unlearn(cell.config, str(folder), prepare=lambda work: self.adopt_start(cell, work))
        shutil.rmtree(folder / "rounds", ignore_errors=True)
        after, seconds = result["after"], result["seconds"]["total"]
        return f"unlearn quality {after['unlearn_quality']:.1f}, utility {after['utility']:.1f}, {seconds:.0f} s"

    def adopt_start(self, cell: Cell, work: Workdir) -> None:
        """Take the evaluation of the start, and its own answers to retain questions where there are any, from a run
        that began with the same one, on the same data.
        """
        if (work.path / "before.json").exists():
            return
        start = cell.start
        for other in (one for one in self.plan.cells.values() if one.start == start):
            theirs = Workdir(str(folder_of(self.workdir, other)))
            kept = theirs.path != work.path and read_json(theirs.path / "before.json")
            if kept and theirs.frozen()["data"] == work.frozen()["data"]:
                shutil.copy(theirs.path / "answers" / "before.jsonl", work.file("answers/before.jsonl"))
                if (theirs.path / "retain.json").exists():
                    shutil.copy(theirs.path / "retain.json", work.file("retain.json"))
                write_json(work.file("before.json"), kept)
                return

    def measure(self, names: list[str], chosen: list[Cell]) -> None:
        """Evaluate yardsticks, or runs of the chosen points, whose checkpoints go then."""
        for i, name in enumerate(names, 1):
            if not self.is_measured(name):
                folder, work = self.evaluation(name), functools.partial(self.evaluate, name)
                self.attempt(f"evaluation-{name}", folder, work, f"evaluation {i} of {len(names)}")
                self.drop_exports(chosen)

    def to_measure(self, chosen: list[Cell]) -> list[Cell]:
        """The runs of chosen points that are evaluated."""
        return [cell for cell in chosen if cell.seed in self.plan.measured]

    def evaluation(self, name: str) -> Path:
        """The workdir of the evaluation of a run, or of a yardstick."""
        return self.workdir / "evaluations" / name

    def is_measured(self, name: str) -> bool:
        """Whether an evaluation is finished."""
        return (self.evaluation(name) / "result.json").exists()

    @functools.cached_property
    def evaluation_settings(self) -> dict[str, ConfigDict]:
        """{name: settings} of the evaluations of yardsticks and runs; all are held against the start."""
        base, measure = self.plan.base, self.plan.of.measure
        models = {FOLDERS[START]: base.model.path, FOLDERS[NEVER_SAW]: base.evaluate.retain_model}
        models |= {c.name: str(folder_of(self.workdir, c).absolute() / "hf") for c in self.plan.cells.values()}
        held = {"evaluate.original_model": base.model.path, "evaluate.retain_model": ""}
        everywhere = {name: model for name, model in models.items() if model and measure is not None}
        return {n: settings.changed(base, measure | held | {"model.path": model}) for n, model in everywhere.items()}

    def evaluate(self, name: str) -> str:
        """An evaluation. That of a run knows the log of the model that never saw the data, where there is one."""
        config, log = self.evaluation_settings[name], self.evaluation(FOLDERS[NEVER_SAW]) / "tofu_log.json"
        if name not in FOLDERS.values():
            if self.plan.base.evaluate.retain_model and not self.is_measured(FOLDERS[NEVER_SAW]):
                raise UserError("waits for the evaluation of evaluate.retain_model; give the command again")
            if not Path(config.model.path).exists():
                run = Path(config.model.path).parent
                raise UserError(f"its checkpoint went when another point was chosen; remove {run} to run it again")
        known = str(log) if name not in FOLDERS.values() and log.exists() else None
        result = run_evaluate(config, str(self.evaluation(name)), known)
        return f"{result['seconds']['total']:.0f} s"

    def drop_exports(self, chosen: list[Cell]) -> None:
        """Remove the checkpoints of rows whose tuning is over that no evaluation waits for."""
        waiting = {cell.name for cell in self.to_measure(chosen) if not self.is_measured(cell.name)}
        for cell in self.plan.cells.values() if not self.plan.keep_exports else ():
            if cell.row in {c.row for c in chosen} and cell.name not in waiting and self.is_done(cell):
                shutil.rmtree(folder_of(self.workdir, cell) / "hf", ignore_errors=True)

    def results(self) -> Results:
        """What is measured by now."""
        plan, rows = self.plan, {}
        for row in plan.of.rows:
            points = []
            for number in plan.points(row):
                runs = {seed: self.measured(plan.cells[row.name, number, seed]) for seed in plan.seeds}
                done = {seed: run for seed, run in runs.items() if run is not None}
                points.append(Point(number, label(row, number), row.points[number - 1] if number else {}, done))
            rows[row.name] = points
        told = {name: read_json(self.evaluation(folder) / "result.json") for name, folder in FOLDERS.items()}
        yardsticks = {name: of_model(result) for name, result in told.items() if result}
        asked = Asked(plan.of.title, plan.seeds, plan.tuning, plan.floor)
        made = summarise(asked, rows, yardsticks)
        return made | {"missing": self.missing(chosen_points(made))}

    def measured(self, cell: Cell) -> Measured | None:
        """What a run and its evaluation measured; None where it is not finished."""
        return read_run(folder_of(self.workdir, cell), self.evaluation(cell.name), self.plan.floor)

    def missing(self, chosen: dict[str, dict[str, Any]]) -> dict[str, str]:
        """{run or evaluation: why there is no result}. chosen: the chosen point of each row."""
        cells = self.plan.cells.values()
        shown = [c for c in cells if c.point == chosen.get(c.row, {}).get("point")]
        wanted = [c for c in cells if c in shown or c.seed in self.plan.tuning]
        measured = self.to_measure(shown)
        why = {c.name: "not run" for c in wanted if not self.is_done(c)}
        why |= {f"evaluation-{c.name}": "not made" for c in measured if not self.is_measured(c.name)}
        yardsticks = {f"evaluation-{name}" for name in FOLDERS.values()}
        failed = {name: self.failure(name) for name in (*why, *yardsticks)}
        return why | {name: f"failed: {reason}" for name, reason in failed.items() if reason}


def is_taken(folder: Path) -> bool:
    """Whether another process runs in a workdir."""
    if not folder.exists():
        return False
    lock = Lock(folder / "lock")
    try:
        return not lock.hold()
    finally:
        lock.release()


def let_programs_go() -> None:
    """Compiled programs of one method are of no use to the next, and hundreds of megabytes; shared ones are on disk."""
    jax.clear_caches()
    gc.collect()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The tables of single runs are not printed inside."""
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = False
