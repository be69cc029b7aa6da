"""Fluency: how likely a model finds answers, its own or another's. Gibberish is unlikely to the model from before."""

from typing import Any

import numpy as np

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.refusals import is_refusal
from pmc_jax.evaluate.likelihood import NO_LIMIT, TokenScores, tracked_scores
from pmc_jax.sampling.sampler import Sampler

FAR = 10.0  # an answer this many times less likely a token than the model's own is no fluent one


def perplexities(scores: list[TokenScores]) -> np.ndarray:
    """exp of the mean -log p of each row's answer tokens, the end token included.

    Returns:
        float64 [N], 1 or more; NaN for a row without answer tokens.
    """
    means = [np.mean(s.log_probs, dtype=np.float64) if len(s.log_probs) else np.nan for s in scores]
    return np.exp(-np.array(means, np.float64))


def answer_perplexities(
    sampler: Sampler, questions: list[str], answers: list[str], progress: str = "fluency", show: bool = True
) -> np.ndarray:
    """The perplexity of answers to questions under a model; see `perplexities`.

    Args:
        sampler: of the model that judges, as a rule the one from before unlearning; how it samples does not matter.
        questions: N questions.
        answers: an answer to each; an empty one is the end token alone.
        progress: begins the progress line.
        show: whether progress is shown.

    Returns:
        float64 [N].
    """
    rows = [training_row(sampler.text, q, a, NO_LIMIT, FORGET) for q, a in zip(questions, answers, strict=True)]
    return perplexities(tracked_scores(sampler, rows, progress, show))


def with_perplexity(
    rows: list[dict[str, Any]], judge: Sampler, progress: str, show: bool = True
) -> list[dict[str, Any]]:
    """Evaluated answers, those to forget questions with "perplexity": that of the answer under the judge."""
    forget = [row for row in rows if row["set"] == "forget"]
    questions, answers = ([row[key] for row in forget] for key in ("question", "answer"))
    values = iter(answer_perplexities(judge, questions, answers, progress, show))
    # Four digits: the further ones differ between meshes.
    return [row | {"perplexity": float(f"{next(values):.4g}")} if row["set"] == "forget" else row for row in rows]


def kinds_of_answers(
    answers: list[str], perplexity_N: Any, own_median: float, refusals: tuple[str, ...]
) -> dict[str, Any]:
    """What forget answers are: refusals, fluent, or neither.

    Args:
        answers: N forget answers.
        perplexity_N: of each under the original model.
        own_median: the median perplexity of the original model's own answers to the same questions.
        refusals: texts that count as refusals (`data.refusals.is_refusal`).

    Returns:
        {"refused", "fluent", "neither": shares that sum to 1, "rows": N, "limit": the perplexity above which an answer
        that is no refusal is "neither": FAR times that of the model's own answers}.
    """
    refused_N = np.array([is_refusal(answer, refusals) for answer in answers], bool)
    odd_N = ~refused_N & ~(np.asarray(perplexity_N, np.float64) <= FAR * own_median)
    refused, neither = float(refused_N.mean()), float(odd_N.mean())
    shares = {"refused": refused, "fluent": 1 - refused - neither, "neither": neither}
    return shares | {"rows": len(answers), "limit": FAR * own_median}


def median_perplexity(perplexity_N: Any) -> dict[str, Any]:
    """{"median", "rows"}: a few answers of gibberish would rule a mean."""
    known_N = np.asarray(perplexity_N, np.float64)
    known_N = known_N[np.isfinite(known_N)]
    return {"median": float(np.median(known_N)) if len(known_N) else None, "rows": len(known_N)}
