"""Neighbouring knowledge: whether what lies near the secret suffers more than what lies far from it.

Definition. A retain question is as near to the forget set as the largest cosine between its TF-IDF vector and those of
the forget questions (words of any script, weights learnt on all questions of both sets). The nearest quarter of the
retain rows is held against the farthest: questions about the same kind of thing, asked in the same words, against
questions about something else.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pmc_jax.evaluate.interval import mean_with_interval, middle, resampled_means

NEAR, FAR = 1, 2  # seeds: the two quarters are drawn apart
FEWEST = 8  # retain rows for quarters of two


def nearness(forget_questions: list[str], retain_questions: list[str]) -> np.ndarray:
    """How near each retain question is to the forget set, 0..1, float64 [N]; 0 where the questions hold no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(token_pattern=r"[^\W_]+").fit_transform([*forget_questions, *retain_questions])
    except ValueError:  # an empty vocabulary
        return np.zeros(len(retain_questions))
    forget, retain = vectors[: len(forget_questions)], vectors[len(forget_questions) :]
    return (retain @ forget.T).max(axis=1).toarray().ravel()  # rows have length 1


def quarters(nearness_N: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the nearest quarter, of the farthest); of equally near rows the first ones are nearer."""
    order = np.argsort(-np.asarray(nearness_N), kind="stable")
    size = len(order) // 4
    return order[:size], order[len(order) - size :]


def compare(values_N: ArrayLike, near: np.ndarray, far: np.ndarray) -> dict[str, Any]:
    """{"near", "far": mean with interval and rows, "difference": near less far with its interval}."""
    near_values, far_values = np.asarray(values_N, np.float64)[near], np.asarray(values_N, np.float64)[far]
    low, high = middle(resampled_means(near_values, NEAR) - resampled_means(far_values, FAR))
    return {
        "near": mean_with_interval(near_values, NEAR)._asdict(),
        "far": mean_with_interval(far_values, FAR)._asdict(),
        "difference": {
            "mean": float(near_values.mean() - far_values.mean()),
            "low": low,
            "high": high,
            "rows": len(near) + len(far),
        },
    }


def neighbours(
    forget_questions: list[str],
    retain_questions: list[str],
    recall_N: ArrayLike,
    original_recall_N: ArrayLike | None = None,
) -> dict[str, Any]:
    """Recall of the retain rows near to the forget set and far from it, and how it changed.

    Args:
        forget_questions: what the secret is asked by.
        retain_questions: of N rows.
        recall_N: recall of the answers to the retain questions; NaN rows are left out.
        original_recall_N: that of the model before unlearning; no change without it.

    Returns:
        {"recall": `compare` of now, "change": `compare` of now less original, "nearness": {"near", "far": mean
        cosine}}; {"reason"} where there are too few retain rows.
    """
    known_N = ~np.isnan(np.asarray(recall_N, np.float64))
    recall_N = np.asarray(recall_N, np.float64)[known_N]
    retain_questions = list(itertools.compress(retain_questions, known_N))
    if len(retain_questions) < FEWEST:
        return {"reason": f"needs {FEWEST} retain rows, there are {len(retain_questions)}"}
    near_N = nearness(forget_questions, retain_questions)
    near, far = quarters(near_N)
    result = {
        "recall": compare(recall_N, near, far),
        "nearness": {"near": float(near_N[near].mean()), "far": float(near_N[far].mean())},
    }
    if original_recall_N is not None:
        change_N = recall_N - np.asarray(original_recall_N, np.float64)[known_N]
        result["change"] = compare(change_N, near, far)
    return result
