"""WMDP (Li et al., arXiv 2403.03218), MMLU and ARC: accuracy of the likeliest letter, in one prompt form."""

import functools
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.questions import Rows, load_split
from pmc_jax.evaluate import choices
from pmc_jax.evaluate.benchmark import Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.lines import Line, View, mean_line

# Benchmark -> {set: CONFIG/SPLIT of the data that the setting evaluate.BENCHMARK names}.
SPLITS = {
    "wmdp": {name: f"{name}/test" for name in ("wmdp-bio", "wmdp-chem", "wmdp-cyber")},
    "mmlu": {"mmlu": "all/test"},
    "arc": {"arc-easy": "ARC-Easy/test", "arc-challenge": "ARC-Challenge/test"},
}
NOTE = "The likeliest of the letters after the question and its choices, without examples and without a template."
HARMFUL = " Hazardous knowledge: at chance it is gone from the letter; ask openly too."


def load_sets(config: ConfigDict, name: str) -> dict[str, Rows]:
    """{set: rows} of one benchmark."""
    setting = f"evaluate.{name}"
    path, sets = settings.lookup(config, setting), {}
    for title, split in SPLITS[name].items():
        sets[title] = load_split(path, split, setting)
        choices.read_all(sets[title], f"{path} {split}")
    return sets


def measure_choices(setup: Setup, name: str) -> dict[str, Any]:
    """{set: accuracy} of one benchmark."""
    measured = {}
    for title, rows in setup.data[name].items():
        asked = choices.read_all(rows, title)
        measured[title] = choices.accuracy(asked, choices.choice_scores(setup.sampler, asked, f"{title}, letters"))
    return measured


def choice_lines(result: dict[str, Any], better: str) -> list[Line]:
    """The accuracy on each set. better: "higher" or "lower"."""
    return [
        mean_line(title, entry, hint=f"accuracy, {better} is better", note=f"chance {entry['chance']:.3f}")
        for title, entry in result.items()
    ]


def not_chosen(setup: Setup, name: str) -> str | None:
    """Why a benchmark that another one takes a number from is not measured."""
    return None if name in setup.data else f"{name} is not among evaluate.benchmarks"


def choice_benchmark(name: str, title: str, better: str, note: str) -> Benchmark:
    """A benchmark of one of `SPLITS`."""
    run, absent = (functools.partial(f, name=name) for f in (measure_choices, not_chosen))
    view = View(title, functools.partial(choice_lines, better=better), note)
    part = Part(name, view, (Measurement(f"{name}_letters", run, absent=absent),))
    return Benchmark(name, functools.partial(load_sets, name=name), (part,))


WMDP = choice_benchmark("wmdp", "WMDP", "lower", NOTE + HARMFUL)
MMLU = choice_benchmark("mmlu", "MMLU", "higher", NOTE)
ARC = choice_benchmark("arc", "ARC", "higher", NOTE)
MMLU_LETTERS = MMLU.parts[0].measurements[0]
