"""Rows of a TOFU evaluation log: losses, scores and answers -> the JSON that open-unlearning writes for each row."""

from typing import Any

import numpy as np

from pmc_jax.evaluate import metrics
from pmc_jax.methods.rouge import rouge_1_recall, rouge_l_f1, rouge_l_recall, rouge_tokens

SETS = ("forget", "retain", "ra", "wf")  # forget and retain rows, real authors, world facts
RATIOS = {"forget": "forget_truth_ratio", **{s: f"{s}_Truth_Ratio" for s in SETS[1:]}}


def jsonable(value: Any) -> float | list | None:
    """A float, or a list of them for an array; null for what is no finite number, as JSON has none."""
    if np.ndim(value):
        return [jsonable(v) for v in value]
    return float(value) if value is not None and np.isfinite(value) else None


def probability_rows(losses: Any) -> list[dict[str, Any]]:
    """Rows of a *_Prob metric from mean losses a token, [N], or [N, K] for K wrong answers a row."""
    losses = np.asarray(losses, np.float64)
    return [{"prob": jsonable(p), "avg_loss": jsonable(loss)} for p, loss in zip(np.exp(-losses), losses)]


def score_rows(scores_N: Any) -> list[dict[str, Any]]:
    """Rows of a metric with one score a row."""
    return [{"score": jsonable(value)} for value in scores_N]


def rouge_rows(inputs: list[str], truths: list[str], generations: list[str]) -> list[dict[str, Any]]:
    """Rows of a *_ROUGE metric: the prompt, the right answer, the model's, and their ROUGE with stemmer.

    An empty generation scores 0.
    """
    rows = []
    for text, truth, generation in zip(inputs, truths, generations, strict=True):
        truth_tokens, tokens = rouge_tokens(truth), rouge_tokens(generation)
        measured = {
            "rouge1_recall": rouge_1_recall(truth_tokens, tokens),
            "rougeL_f1": rouge_l_f1(truth_tokens, tokens),
            "rougeL_recall": rouge_l_recall(truth_tokens, tokens),
        }
        rows.append({**measured, "input": text, "ground_truth": truth, "generation": generation})
    return rows


def indexed(rows: list[dict[str, Any] | None]) -> dict[str, Any]:
    """A metric with rows; its aggregate comes later."""
    return {"agg_value": None, "value_by_index": {str(i): row for i, row in enumerate(rows)}}


def row_losses(entry: dict[str, Any]) -> list[Any]:
    """Each row's avg_loss: a number, or one for each wrong answer; NaN where undefined."""
    return [np.asarray((row or {}).get("avg_loss"), np.float64) for row in entry["value_by_index"].values()]


def derived_rows(entries: dict[str, Any]) -> dict[str, Any]:
    """Truth ratios and normalised probabilities of those sets whose right and wrong answers were measured."""
    made = {}
    for name, ratio in RATIOS.items():
        right, wrong = (
            f"{name}_Q_A_PARA_Prob" if name in ("forget", "retain") else f"{name}_Q_A_Prob",
            f"{name}_Q_A_PERT_Prob",
        )
        if not {right, wrong} <= entries.keys():
            continue
        pairs = list(zip(row_losses(entries[right]), row_losses(entries[wrong]), strict=True))
        made[ratio] = indexed(score_rows([metrics.truth_ratio_geometric(r, np.atleast_1d(w)) for r, w in pairs]))
        if name in ("ra", "wf"):
            normalised = [metrics.normalised_probability(np.exp(-r), np.atleast_1d(np.exp(-w))) for r, w in pairs]
            made[f"{name}_Q_A_Prob_normalised"] = indexed([{"prob": jsonable(p)} for p in normalised])
    return made
