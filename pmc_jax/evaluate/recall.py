"""How much of the truth answers hold, and how much of the texts the score sees.

Two scores are told side by side. ROUGE-L recall counts the words in their order, the frame of the sentence included;
content recall counts the words that carry what is told. A score that cannot see its text is refused.
"""

from typing import Any

import numpy as np

from pmc_jax.data.questions import Rows
from pmc_jax.errors import UserError
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.methods.rewards import LEAST_SEEN, score
from pmc_jax.methods.rouge import share_seen
from pmc_jax.methods.similarity import content_words, share_of_words

ROUGE, CONTENT = "rouge_l_recall", "content_recall"


def recall(name: str, questions: list[str], truths: list[str], answers_NS: list[list[str]]) -> np.ndarray:
    """How much of each truth its answers hold.

    Args:
        name: the setting `evaluate.score`, ROUGE or CONTENT.
        questions: N questions.
        truths: what is right; "" where that is not known.
        answers_NS: S answers to each question.

    Returns:
        0..1, float64 [N, S]; NaN for a row without a truth, and by content recall for one whose truth has no content
        word, as in "Yes, it is".
    """
    if name == ROUGE:
        recall_NS = score(truths, answers_NS, ROUGE)
        recall_NS[[not truth.strip() for truth in truths]] = np.nan
        return recall_NS
    contents = [content_words(question, truth) for question, truth in zip(questions, truths, strict=True)]
    shares = [[share_of_words(c, a) if c else np.nan for a in answers] for c, answers in zip(contents, answers_NS)]
    return np.array(shares, np.float64).reshape(len(contents), -1)


def greedy_recall(name: str, questions: list[str], truths: list[str], answers: list[str]) -> np.ndarray:
    """`recall` of one answer to each question, float64 [N]."""
    return recall(name, questions, truths, [[answer] for answer in answers]).reshape(-1)


def mean_recall(recall_N: Any, seed: int = 0) -> dict[str, Any]:
    """The mean of the rows that have a recall, with its interval: {"mean", "low", "high", "rows", "of": all rows}."""
    return mean_with_interval(recall_N, seed)._asdict() | {"of": len(recall_N)}


def left_out(entry: dict[str, Any]) -> str:
    """What there is to say of rows that a mean leaves out; "" where it has all."""
    rows, of = entry["rows"], entry.get("of", entry["rows"])
    return f"{rows} of {of} rows: the others have no answer, or none with a word to count" if rows < of else ""


def check_texts_seen(name: str, title: str, questions: list[str], truths: list[str]) -> None:
    """UserError for a truth of which the score sees less than `LEAST_SEEN`: it would count as gone.

    Args:
        name: the setting `evaluate.score`.
        title: what the rows are, for the message.
        questions: N questions.
        truths: the answers that others are measured against; an empty one is not measured.
    """
    if name != ROUGE:
        return
    for row, (question, truth) in enumerate(zip(questions, truths, strict=True), 1):
        share = share_seen(truth) or 0.0
        if truth.strip() and share < LEAST_SEEN:
            raise UserError(
                f"{title} row {row}, {question[:40]!r}: ROUGE-L sees a-z and 0-9 only, {share:.0%} of the letters and "
                f"digits of {truth[:40]!r}; evaluate.score=content_recall counts words of every script, and so does "
                "pmc.reward=content_recall"
            )


def check_truths_seen(name: str, sets: dict[str, Rows]) -> None:
    """UserError where the score cannot see the answers that the sets give, row by row; see `check_texts_seen`."""
    for title, rows in sets.items():
        questions, truths = [row["question"] for row in rows], [row.get("answer") or "" for row in rows]
        check_texts_seen(name, title.replace("_", " "), questions, truths)
