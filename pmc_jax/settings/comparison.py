"""What a comparison runs: the section `compare`, which a preset such as configs/compare_tofu_mini.py adds to the
settings.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax.settings.setting import AT_LEAST_0, Setting

# They are of `compare` alone: no run knows of them.
COMPARISON = (
    Setting("compare.seeds", "0,1,2", "seeds of every row, joined by commas"),
    Setting(
        "compare.tuning_seeds",
        0,
        "the first so many seeds are those that grid points are chosen by; the chosen one is run with all; 0 = all",
        *AT_LEAST_0,
    ),
    Setting(
        "compare.measured_seeds",
        0,
        "the first so many seeds of a chosen point are evaluated beyond quality and utility; 0 = all",
        *AT_LEAST_0,
    ),
    Setting("compare.rows", "", "rows of the preset that are run, joined by commas; empty = all"),
    Setting(
        "compare.floor",
        95.0,
        "a grid point may be chosen where it keeps this share of the start's utility, percent",
        "0 to 100",
        lambda v: 0 <= v <= 100,
    ),
    Setting("compare.keep_exports", False, "keep every run's checkpoint; else they go once they are measured"),
)


class Row(NamedTuple):
    """A row of the table: a method, or a value of an ablation.

    Attributes:
        name: what it is called; names the folders of its runs.
        points: the settings that each grid point changes. One of them is chosen.
        recipe: the preset whose settings it starts from, such as "rivals:npo"; empty = the defaults. With several
            points, the recipe as it is, untuned, is shown besides.
        held: settings of all its points and of the untuned recipe, such as what the recipe's authors had for a model of
            another depth.
    """

    name: str
    points: tuple[dict[str, Any], ...]
    recipe: str = ""
    held: dict[str, Any] = {}  # noqa: RUF012  never changed


class Comparison(NamedTuple):
    """What is compared.

    Attributes:
        rows: of the table.
        measure: settings of the evaluation of the chosen points; None = they are not evaluated any further.
        title: heading of the table.
    """

    rows: tuple[Row, ...]
    measure: dict[str, Any] | None = None
    title: str = "Comparison"


def with_comparison(config: ConfigDict, comparison: Comparison, **values: Any) -> ConfigDict:
    """The settings of a comparison.

    Args:
        config: what holds for all runs, where it is not the default.
        comparison: what is compared.
        values: of COMPARISON, where they are not the defaults, such as tuning_seeds=1.
    """
    defaults = {setting.name.removeprefix("compare."): setting.default for setting in COMPARISON}
    with config.unlocked():
        config.compare = ConfigDict(defaults | {"of": comparison}).lock()
    config.compare.update(values)
    return config
