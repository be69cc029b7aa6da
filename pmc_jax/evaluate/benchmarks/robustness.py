"""What is left of the secret, and what was damaged: leakage, relearning, rounded weights, neighbouring knowledge,
drift.
"""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows
from pmc_jax.data.refusals import load_refusals
from pmc_jax.errors import UserError
from pmc_jax.evaluate import attacks, views
from pmc_jax.evaluate.benchmark import (
    MODEL,
    NO_MODEL,
    ORIGINAL_MODEL,
    RETAIN_MODEL,
    Benchmark,
    Measurement,
    Part,
    Setup,
)
from pmc_jax.evaluate.benchmarks.quality import ANSWERS, RETAIN_ANSWERS, answers_of, sets_of
from pmc_jax.evaluate.benchmarks.quantised import PART as QUANTISED
from pmc_jax.evaluate.drift import drift, forget_words, words_of_rows
from pmc_jax.evaluate.fluency import answer_perplexities, kinds_of_answers, median_perplexity
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.neighbours import neighbours
from pmc_jax.evaluate.quality import KEEP
from pmc_jax.evaluate.recall import CONTENT, greedy_recall
from pmc_jax.evaluate.relearn import relearning
from pmc_jax.tracking.progress import track

NO_ANSWERS = "the forget rows have no answers"
OFF = "switched off in the settings"


def load_nothing(config: ConfigDict) -> dict[str, Rows]:
    """This benchmark measures on the sets of `quality`."""
    return {}


def no_answers(setup: Setup) -> str | None:
    """Why there is no secret to look for: forget rows without answers."""
    return None if secrets(setup) else NO_ANSWERS


def secrets(setup: Setup) -> Rows:
    """The forget rows whose answers are given."""
    return [row for row in sets_of(setup)["forget"] if row.get("answer")]


def no_leakage(setup: Setup) -> str | None:
    """Why leakage is not measured."""
    return no_answers(setup) or (None if setup.config.evaluate.leak_samples else OFF)


def no_relearning(setup: Setup) -> str | None:
    """Why relearning is not measured."""
    return no_answers(setup) or (None if setup.config.evaluate.relearn_rows else OFF)


def no_original(setup: Setup) -> str | None:
    """Why nothing is held against the model from before unlearning."""
    return None if setup.config.evaluate.original_model else NO_MODEL[ORIGINAL_MODEL]


def no_drift(setup: Setup) -> str | None:
    """Why drift is not measured."""
    return no_original(setup) or no_answers(setup)


def measure_leakage(setup: Setup, name: str, prefill: str) -> dict[str, Any]:
    """Leakage in many samples of each forget answer, after the words of `prefill`."""
    forget, settings = secrets(setup), setup.config.evaluate
    with track(f"leakage, {name}", len(forget)) as advance:
        sampler, samples = setup.sampler, settings.leak_samples
        return attacks.sampled_leakage(sampler, forget, samples, prefill, advance, settings.score)


def measure_relearning(setup: Setup) -> dict[str, Any]:
    """The relearning curve of the model."""
    return relearning_curve(setup, [row["answer"] for row in answers_of(setup, "forget")], "model")


def measure_retain_relearning(setup: Setup) -> dict[str, Any]:
    """The relearning curve of the retain model."""
    return relearning_curve(setup, setup.finding(RETAIN_ANSWERS.name)["answers"], "retain model")


def relearning_curve(setup: Setup, first_answers: list[str], name: str) -> dict[str, Any]:
    """A relearning curve, with a progress line. first_answers: to all forget questions."""
    asked = [answer for row, answer in zip(sets_of(setup)["forget"], first_answers) if row.get("answer")]
    with track(f"relearning, {name}, updates", setup.config.evaluate.relearn_updates) as advance:
        looks = relearning(setup.sampler, setup.config, secrets(setup), asked, advance)
    return {"looks": looks}


def unrelated(setup: Setup) -> dict[str, Rows]:
    """Questions and answers that have nothing to do with the secret; none where there is no original model."""
    if not setup.config.evaluate.original_model:
        return {}
    rows = [row for name in KEEP for row in sets_of(setup).get(name, [])]
    return {"unrelated": [{"question": row["question"], "answer": row["answer"]} for row in rows]}


def measure_words(setup: Setup) -> dict[str, Any]:
    """Every word of unrelated text with its probability under the model."""
    rows = unrelated(setup)["unrelated"]
    return {"words": words_of_rows(setup.sampler.text, rows, setup.scores()["unrelated_Q_A_Prob"])}


def measure_original_model(setup: Setup) -> dict[str, Any]:
    """What the model from before unlearning answers to the retain questions, its words of unrelated text, and how
    likely it finds the forget answers of the model now, and its own.
    """
    texts = questions, truths = [[row[key] for row in sets_of(setup)["retain"]] for key in ("question", "answer")]
    answers = greedy_answers(setup.sampler, questions, truths, "original model, answers")
    recalls = {
        key: without_nan(greedy_recall(name, *texts, answers))
        for key, name in (("retain_recall", setup.config.evaluate.score), ("retain_content_recall", CONTENT))
    }
    forget = answers_of(setup, "forget")
    asked, said = ([row[key] for row in forget] for key in ("question", "answer"))
    perplexity_N = answer_perplexities(setup.sampler, asked, said, "original model, fluency of forget answers")
    own = greedy_answers(setup.sampler, asked, said, "original model, forget answers")
    own_N = answer_perplexities(setup.sampler, asked, own, "original model, fluency of its own answers")
    fluency = {"forget_perplexity": perplexity_N.tolist(), "own_perplexity": own_N.tolist()}
    return recalls | fluency | measure_words(setup)


def without_nan(values_N: np.ndarray) -> list[float | None]:
    """The values, None for NaN, as JSON has it."""
    return [None if np.isnan(value) else float(value) for value in values_N]


def check_tokenizer(config: ConfigDict, tokenizer: Any) -> None:
    """UserError where drift is wanted and the tokenizer does not tell which characters a token covers."""
    if config.evaluate.original_model and not tokenizer.is_fast:
        raise UserError(
            f"evaluate.original_model: drift needs to know where tokens lie in a text; {config.model.path}'s "
            "tokenizer does not tell"
        )


def leakage_measurement(name: str, prefill: str, model: str = MODEL) -> Measurement:
    """Leakage after some words."""
    run = functools.partial(measure_leakage, name=name.replace("_", " "), prefill=prefill)
    return Measurement(f"leakage_{name}", run, model, absent=no_leakage)


SAMPLED, PREFILLED = leakage_measurement("sampled", ""), leakage_measurement("prefilled", views.PREFILL)
RETAIN_SAMPLED = leakage_measurement("retain_model", "", RETAIN_MODEL)
RELEARNING = Measurement("relearning", measure_relearning, absent=no_relearning)
RETAIN_RELEARNING = Measurement("retain_relearning", measure_retain_relearning, RETAIN_MODEL, no_relearning)
WORDS = Measurement("words", measure_words, texts=unrelated)
ORIGINAL = Measurement("original_model", measure_original_model, ORIGINAL_MODEL, texts=unrelated)


def leakage_result(setup: Setup) -> dict[str, Any]:
    """{"sampled", "prefilled": leakage, or why there is none; "retain_model": sampled, where there is that model}."""
    leaks = {"sampled": setup.finding(SAMPLED.name), "prefilled": setup.finding(PREFILLED.name)}
    never_saw = setup.finding(RETAIN_SAMPLED.name)
    return leaks if "reason" in never_saw else leaks | {"retain_model": never_saw}


def relearning_result(setup: Setup) -> dict[str, Any]:
    """{"model", "retain_model": a curve, or why there is none}."""
    return {"model": setup.finding(RELEARNING.name), "retain_model": setup.finding(RETAIN_RELEARNING.name)}


def drift_result(setup: Setup) -> dict[str, Any]:
    """The drift of the forget answers' words since the original model."""
    words = forget_words([row["answer"] for row in secrets(setup)])
    return drift(setup.finding(ORIGINAL.name)["words"], setup.finding(WORDS.name)["words"], words)


def neighbours_result(setup: Setup) -> dict[str, Any]:
    """Near and far retain rows, and their change since the original model; by content recall besides."""
    original, rows = setup.finding(ORIGINAL.name), answers_of(setup, "retain")
    forget, retain = ([row["question"] for row in sets_of(setup)[name]] for name in ("forget", "retain"))
    made = [
        neighbours(forget, retain, [row[name] for row in rows], original.get(key))
        for name, key in ((setup.config.evaluate.score, "retain_recall"), (CONTENT, "retain_content_recall"))
    ]
    result = made[0] | {"content_recall": made[1]}
    return result if "change" in result or "reason" in result else result | {"change": original}


def fluency_result(setup: Setup) -> dict[str, Any]:
    """How likely the original model finds the forget answers of the model now, and which of them are fluent."""
    original = setup.finding(ORIGINAL.name)
    answers, perplexities = [row["answer"] for row in answers_of(setup, "forget")], original["forget_perplexity"]
    own, refusals = median_perplexity(original["own_perplexity"])["median"], load_refusals(setup.config.pmc.refusals)
    kinds = kinds_of_answers(answers, perplexities, own, refusals)
    return {"forget_perplexity": median_perplexity(perplexities), "forget_answers": kinds}


RELEARNING_STEPS = (ANSWERS, RELEARNING, RETAIN_ANSWERS, RETAIN_RELEARNING)
ROBUSTNESS = Benchmark(
    "robustness",
    load_nothing,
    (
        Part("leakage", views.LEAKAGE, (SAMPLED, PREFILLED, RETAIN_SAMPLED), leakage_result),
        Part("relearning", views.RELEARNING, RELEARNING_STEPS, relearning_result),
        QUANTISED,
        Part("drift", views.DRIFT, (WORDS, ORIGINAL), drift_result, no_drift),
        Part("neighbours", views.NEIGHBOURS, (ANSWERS, ORIGINAL), neighbours_result),
        Part("fluency", views.FLUENCY, (ANSWERS, ORIGINAL), fluency_result, no_original),
    ),
)
