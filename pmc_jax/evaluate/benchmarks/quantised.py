"""The model rounded to few bits and asked again: does the secret come back?"""

from typing import Any

import numpy as np

from pmc_jax.evaluate.answers import evaluate
from pmc_jax.evaluate.benchmark import Measurement, Part, Setup
from pmc_jax.evaluate.benchmarks.quality import ANSWERS, sets_of
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.lines import Line, View, mean_line
from pmc_jax.evaluate.recall import CONTENT
from pmc_jax.evaluate.scoring import mean_losses, score_sets
from pmc_jax.evaluate.views import SCORES
from pmc_jax.models.quantise import BITS, quantise
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.settings.setting import names_in

AS_IT_IS = "as it is"
OFF = "switched off (evaluate.quantise)"
NO_ANSWERS = "the forget rows have no answers"


def kinds(setup: Setup) -> list[str]:
    """The kinds of numbers that the settings name."""
    return names_in(setup.config.evaluate.quantise)


def no_quantised(setup: Setup) -> str | None:
    """Why the model is not rounded and asked again."""
    if not any(row.get("answer") for row in sets_of(setup)["forget"]):
        return NO_ANSWERS
    return None if kinds(setup) else OFF


def probability(sampler: Sampler, setup: Setup, name: str) -> dict[str, Any]:
    """The mean probability, a token, of the given forget answers, with its interval."""
    rows = [{"question": r["question"], "answer": r["answer"]} for r in sets_of(setup)["forget"] if r.get("answer")]
    scores = score_sets(sampler, {"forget": rows}, f"{name}, likelihoods")["forget_Q_A_Prob"]
    return mean_with_interval(np.exp(-mean_losses(scores)))._asdict()


def measure_quantised(setup: Setup) -> dict[str, Any]:
    """{kind: {"summary": of the answers to all sets, "probability": of the forget answers}}, one rounded copy at a
    time; of the model as it is the probability alone.
    """
    sampler, score = setup.sampler, setup.config.evaluate.score
    measured = {AS_IT_IS: {"probability": probability(sampler, setup, "not rounded")}}
    checkpoint = sampler.checkpoint
    for kind in kinds(setup):
        params = quantise(checkpoint.family, checkpoint.model, checkpoint.params, BITS[kind])
        rounded = sampler.with_params(params)
        del params
        summary = evaluate(rounded, sets_of(setup), progress=f"{kind}, answers", score=score).summary()
        measured[kind] = {"summary": summary, "probability": probability(rounded, setup, kind)}
        del rounded
    return measured


QUANTISED = Measurement("quantised", measure_quantised, absent=no_quantised)


def quantised_result(setup: Setup) -> dict[str, Any]:
    """{AS_IT_IS, kind: {"summary", "probability"}}."""
    measured = setup.finding(QUANTISED.name)
    return measured | {AS_IT_IS: measured[AS_IT_IS] | {"summary": setup.finding(ANSWERS.name)}}


def quantised_lines(result: dict[str, Any]) -> list[Line]:
    """Each measure of the model as it is and of each rounded one, side by side."""
    lines = []
    for measure in ("forget", CONTENT, "probability", "retain", "unlearn_quality", "utility"):
        for kind, entry in result.items():
            lines.append(measure_line(kind, measure, entry))
    return lines


def measure_line(kind: str, measure: str, entry: dict[str, Any]) -> Line:
    """One measure of one model."""
    summary = entry["summary"]
    if measure == "probability":
        return mean_line(kind, entry["probability"], hint="probability of the forget answers, a token")
    if measure == CONTENT:
        return mean_line(kind, summary[CONTENT]["forget"], hint=f"forget, {SCORES[CONTENT]}")
    low, high = summary["intervals"].get(measure) or (None, None)
    form = "points" if measure in ("unlearn_quality", "utility") else "share"
    hint = measure.replace("_", " ") + ("" if form == "points" else f", {SCORES[summary['score']]}")
    return Line(kind, summary[measure], low, high, summary["rows"].get(measure), form, hint)


VIEW = View(
    "Rounded weights",
    quantised_lines,
    "The matrices of attention and MLP rounded to a few bits, with a step for each output channel, as for serving. "
    "Where forget answers come back, they were hidden and not gone.",
)
PART = Part("quantised", VIEW, (ANSWERS, QUANTISED), quantised_result, no_quantised)
