"""The runs of a comparison: rows x grid points x seeds, each with its settings and its folder."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.errors import UserError, few
from pmc_jax.runs.presets import load_preset
from pmc_jax.settings.comparison import COMPARISON, Comparison, Row
from pmc_jax.settings.setting import names_in

UNTUNED = 0  # the point that is the recipe itself; those of the grid follow from 1 on
NAME = re.compile(r"[\w.=+-]+")
# What the evaluation of the start depends on. `sample.max_` bounds the model's own answers to retain questions.
START = ("model.", "data.", "prompt.", "evaluate.", "sample.max_", "seed")


class Cell(NamedTuple):
    """One run.

    Attributes:
        row: its row's name.
        point: number of its grid point; UNTUNED = the recipe itself.
        seed: of the run.
        config: its settings.
    """

    row: str
    point: int
    seed: int
    config: ConfigDict

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.row}-g{self.point}-s{self.seed}"

    @property
    def start(self) -> dict[str, Any]:
        """The settings that the evaluation of its start follows from: runs with the same ones share it."""
        return {name: value for name, value in settings.to_flat(self.config).items() if name.startswith(START)}


class Plan(NamedTuple):
    """A comparison as it is run.

    Attributes:
        of: rows and measurements, the rows that are wanted.
        base: settings that hold for all runs, and of the evaluations.
        seeds: of every row.
        tuning: the first of them, by which points are chosen.
        measured: the first of them, with which chosen points are evaluated; empty = they are not.
        floor: percent of the start's utility that a chosen point keeps.
        keep_exports: whether checkpoints stay.
        cells: {(row, point, seed): run}, in the order in which they are run.
    """

    of: Comparison
    base: ConfigDict
    seeds: tuple[int, ...]
    tuning: tuple[int, ...]
    measured: tuple[int, ...]
    floor: float
    keep_exports: bool
    cells: dict[tuple[str, int, int], Cell]

    def points(self, row: Row) -> list[int]:
        """The numbers of a row's points, the untuned recipe first where there is a choice to be made."""
        grid = list(range(1, len(row.points) + 1))
        return [UNTUNED, *grid] if row.recipe and len(grid) > 1 else grid


def read_plan(config: ConfigDict) -> Plan:
    """The runs that the section `compare` of the settings asks for.

    Raises:
        UserError: there is no such section, or a row, a seed or a setting in it is not what it should be.
    """
    if "compare" not in config:
        raise UserError(
            "compare: the preset compares nothing; take --config=compare_tofu_mini, or one with a Comparison"
        )
    section = config.compare
    for known in COMPARISON:
        value = section[known.name.removeprefix("compare.")]
        if known.test and not known.test(value):
            raise UserError(f"{known.name}={value!r}: must be {known.limit} ({known.meaning})")
    of, seeds = section.of._replace(rows=wanted_rows(section)), read_seeds(section.seeds)
    base = settings.with_whole_paths(settings.check(settings.changed(config, {})))
    tuning = seeds[: section.tuning_seeds or len(seeds)]
    measured = () if of.measure is None else seeds[: section.measured_seeds or len(seeds)]
    plan = Plan(of, base, seeds, tuning, measured, section.floor, section.keep_exports, {})
    cells = {
        (row.name, point, seed): Cell(row.name, point, seed, config_of(base, row, point, seed))
        for row in of.rows
        for point in plan.points(row)
        for seed in seeds
    }
    return plan._replace(cells=cells)


def wanted_rows(section: ConfigDict) -> tuple[Row, ...]:
    """The rows that are run, checked: names of folders, each once, all with as many grid points."""
    rows, wanted = section.of.rows, names_in(section.rows)
    names = [row.name for row in rows]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"compare.rows={section.rows!r}: there is no row {unknown[0]!r}; choose of {', '.join(names)}")
    odd = [name for name in names if not NAME.fullmatch(name)]
    twice = [name for name in names if names.count(name) > 1]
    if odd or twice:
        why = "is not a name of letters, digits and . = + -" if odd else "stands there twice"
        raise UserError(f"compare: the row {(odd or twice)[0]!r} {why}; rename it")
    sizes = {row.name: len(row.points) for row in rows}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
        counts = few(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"compare: every row needs as many grid points, one at least; they have: {counts}")
    return tuple(row for row in rows if not wanted or row.name in wanted)


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds in "0,1,2"."""
    words = names_in(text)
    if not words or len(set(words)) != len(words) or not all(word.isdecimal() for word in words):
        raise UserError(f"compare.seeds={text!r}: must be whole numbers, each once, such as 0,1,2")
    return tuple(map(int, words))


def config_of(base: ConfigDict, row: Row, point: int, seed: int) -> ConfigDict:
    """The settings of a run: its recipe, over it what holds for all runs, over that its grid point.

    Raises:
        UserError: it names the row, and what is wrong with its recipe or its point.
    """
    changes = row.held | (row.points[point - 1] if point != UNTUNED else {})
    unknown = [name for name in changes if name not in settings.NAMES]
    if unknown:
        raise UserError(f"compare: {row.name}: there is no setting {unknown[0]!r}{settings.suggest(unknown[0])}")
    everywhere = {n: value for n, value in settings.to_flat(base).items() if value != settings.DEFAULTS[n]}
    try:
        recipe = settings.to_flat(load_preset(row.recipe)) if row.recipe else {}
        return settings.check(settings.from_flat(recipe | everywhere | changes | {"seed": seed}))
    except (UserError, TypeError) as error:
        raise UserError(f"compare: {row.name}: {error}") from None


def label(row: Row, point: int) -> str:
    """What a point changes, in a few words: the settings in which the row's points differ, by their last names."""
    if point == UNTUNED:
        return "untuned"
    own = row.points[point - 1]
    differ = [n for n in own if any(other.get(n) != own[n] for other in row.points)] or list(own)
    return ", ".join(f"{name.rpartition('.')[2]} {own[name]}" for name in differ)


def folder_of(workdir: Path, cell: Cell) -> Path:
    """The workdir of a run."""
    return workdir / "runs" / cell.name
