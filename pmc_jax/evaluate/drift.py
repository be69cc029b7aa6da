"""Drift: what unlearning did to the words of the forget answers where they stand in text that has nothing to do with
the secret.

Training on a secret to push its probability down also pushes the same words down elsewhere ("born", "novel", a city's
name); PMC's change should have mean zero and little spread (arXiv 2507.04219, side effects).

Definition. A word is a run of letters and digits, case folded. Forget words are those of the forget answers without
English function words (scikit-learn's stop words): these stand in every text, are no part of a secret, and would drown
the others. The unrelated text is the answers of the retain, world-facts and real-authors sets. A word's probability
there is the product over its tokens, each after the question and all of the answer before it. The drift of a word is
this probability after unlearning less before. Beside the forget words stand all other words but function words: where
those change as much, the change is general damage and no trace of the secret.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pmc_jax.evaluate.interval import draws, middle

Word = tuple[str, float]  # a word in a text and its probability there


def words_of(text: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of every word of a text, case folded; letters of any script, digits."""
    return [(m.group().casefold(), *m.span()) for m in re.finditer(r"[^\W_]+", text)]


def forget_words(answers: list[str]) -> set[str]:
    """The words of the forget answers that are no English function words."""
    return {word for answer in answers for word, _, _ in words_of(answer)} - function_words()


def function_words() -> set[str]:
    """English words that stand in every text."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return set(ENGLISH_STOP_WORDS) | {"s", "t"}  # what is left of "author's", "don't"


def word_probabilities(text: str, spans: Sequence[tuple[int, int]], log_probs: Sequence[float]) -> list[Word]:
    """Every word of a text with the product of its tokens' probabilities.

    A token that reaches into two words counts in both.

    Args:
        text: the text.
        spans: (start, end) in the text of each token, from the tokenizer.
        log_probs: of each token, nats.

    Returns:
        The words in their order; a word that no token reaches is left out.
    """
    words = []
    for word, start, end in words_of(text):
        own = [lp for (a, b), lp in zip(spans, log_probs) if a < end and b > start]
        if own:
            words.append((word, float(np.exp(np.sum(own, dtype=np.float64)))))
    return words


def words_of_rows(text: Any, rows: list[dict[str, Any]], scores: list[list[Any]]) -> list[list[Word]]:
    """Every word of the rows' answers with its probability after the question.

    Args:
        text: `prompts.Text` of the model, with a tokenizer that tells where tokens lie.
        rows: with "answer".
        scores: [row][answer] -> TokenScores; the first answer is that of the row.

    Returns:
        The words of each row.
    """
    words = []
    for row, row_scores in zip(rows, scores):
        whole, answer = text.answer_text(row["answer"]), row["answer"].strip()
        tag_length = whole.rindex(answer)  # the template's tag is no part of the text
        in_answer = [(start - tag_length, end - tag_length) for start, end in text.spans(row["answer"])]
        words.append(word_probabilities(answer, in_answer, row_scores[0].log_probs[:-1]))
    return words


def change(changes_W: np.ndarray, rows_W: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation of the changes of W words, 95 % interval of the mean, words and rows.

    Words of one text change together, so whole texts are drawn anew for the interval.

    Args:
        changes_W: change of each word's probability.
        rows_W: which text each word stands in.
    """
    if not changes_W.size:
        return {"mean": None, "std": None, "low": None, "high": None, "words": 0, "rows": 0}
    _, row_W = np.unique(rows_W, return_inverse=True)
    sums_N, counts_N = np.bincount(row_W, changes_W), np.bincount(row_W)
    low, high = None, None
    if len(counts_N) > 1:
        texts_RN = draws(len(counts_N))
        low, high = middle(sums_N[texts_RN].sum(axis=1) / counts_N[texts_RN].sum(axis=1))
    statistics = {"mean": float(changes_W.mean()), "std": float(changes_W.std()), "low": low, "high": high}
    return statistics | {"words": int(changes_W.size), "rows": len(counts_N)}


def drift(before: list[list[Word]], after: list[list[Word]], secret: set[str]) -> dict[str, Any]:
    """The `change` of the forget answers' words and of other words in unrelated text.

    Args:
        before: the words of each text under the original model.
        after: the same words in the same order under the model now.
        secret: from `forget_words`.

    Returns:
        {"forget_words", "other_words": change}.
    """
    skipped = function_words()
    words = [
        (word, now - then, row) for row, pair in enumerate(zip(before, after)) for (word, then), (_, now) in zip(*pair)
    ]
    kinds = {
        "forget_words": [w for w in words if w[0] in secret],
        "other_words": [w for w in words if w[0] not in secret and w[0] not in skipped],
    }
    return {
        kind: change(np.array([c for _, c, _ in chosen], float), np.array([row for *_, row in chosen], int))
        for kind, chosen in kinds.items()
    }
