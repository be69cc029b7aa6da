"""General ability, a part of every evaluation: perplexity of unrelated text, and multiple choice of the user's own."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.passages import load_passages
from pmc_jax.data.questions import Rows, load_split, read_file
from pmc_jax.evaluate import choices
from pmc_jax.evaluate.ability import perplexity
from pmc_jax.evaluate.benchmark import MODEL, ORIGINAL_MODEL, Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.lines import Line, View, mean_line
from pmc_jax.evaluate.raw_text import document_losses

OWN = "choices"
NO_CHOICES = "no multiple choice was given (evaluate.choices)"


def load_choices(config: ConfigDict) -> dict[str, Rows]:
    """{OWN: rows} of the file or the data set that evaluate.choices names; {} where it names none."""
    path, split = config.evaluate.choices, config.evaluate.choices_split
    if not path:
        return {}
    rows = read_file(path) if Path(path).is_file() else load_split(path, split, "evaluate.choices")
    choices.read_all(rows, path)
    return {OWN: rows}


def measure_ability(setup: Setup) -> dict[str, Any]:
    """{"nll", "tokens": of each passage; "choices": accuracy, where there are some}."""
    nll_N, tokens_N = document_losses(setup.sampler, load_passages(), "general ability, passages")
    measured = {"nll": nll_N.tolist(), "tokens": tokens_N.tolist()}
    if own := setup.data[ABILITY.name].get(OWN):
        asked = choices.read_all(own, setup.config.evaluate.choices)
        scores = choices.choice_scores(setup.sampler, asked, "general ability, letters")
        measured["choices"] = choices.accuracy(asked, scores)
    return measured


NOW = Measurement("ability", measure_ability, MODEL)
BEFORE = Measurement("original_ability", measure_ability, ORIGINAL_MODEL)


def ability_result(setup: Setup) -> dict[str, Any]:
    """{"now", "before": {"perplexity", "choices"}, or {"reason": why not}}."""
    return {"now": summarise(setup.finding(NOW.name)), "before": summarise(setup.finding(BEFORE.name))}


def summarise(measured: dict[str, Any]) -> dict[str, Any]:
    """One model's numbers from what was measured."""
    if "reason" in measured:
        return measured
    own = measured.get("choices") or {"mean": None, "low": None, "high": None, "rows": None, "reason": NO_CHOICES}
    return {"perplexity": perplexity(measured["nll"], measured["tokens"]), "choices": own}


def ability_lines(result: dict[str, Any]) -> list[Line]:
    """Perplexity and accuracy now, and before where the original model was given."""
    lines = []
    for key, when in (("now", ""), ("before", ", original model")):
        if "reason" not in (numbers := result[key]):
            lines.append(mean_line(f"Perplexity of unrelated text{when}", numbers["perplexity"], form="number"))
            own = numbers["choices"]
            note = own.get("reason") or f"chance {own['chance']:.3f}"
            lines.append(mean_line(f"Multiple choice{when}", own, note=note))
    return lines


VIEW = View(
    "General ability",
    ability_lines,
    "Passages of general prose that come with the package, a token, lower is better; and your own multiple choice by "
    "the likeliest letter, higher is better.",
)
ABILITY = Benchmark("ability", load_choices, (Part("ability", VIEW, (NOW, BEFORE), ability_result),))
