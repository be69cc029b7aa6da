"""What PMC keeps of each question from one round to the next: the best answer so far, and its score."""

from typing import NamedTuple

import numpy as np


class Memory(NamedTuple):
    """What is remembered of each question; plain lists, so that it is saved as JSON.

    references: the untouched model's own greedy answer. answers: the stored answer, "" before the first round. scores:
    its score, None before.
    lengths: mean tokens of the last samples, by which prompts are sorted.

    After the questions come their prefixed rows, without references of their own. Each epoch draws them anew, so what
    is stored of one is for its epoch only (`without_last_epoch`). It is the whole answer, the prefix included.
    """

    references: list[str]
    answers: list[str]
    scores: list[float | None]
    lengths: list[float]


def without_last_epoch(memory: Memory, questions: np.ndarray) -> Memory:
    """Memory without the scores of those of `questions` that are prefixed rows: they ask something else now."""
    scores = list(memory.scores)
    for q in questions[questions >= len(memory.references)]:
        scores[q] = None
    return memory._replace(scores=scores)


def unsolved(memory: Memory, questions: np.ndarray, skip_solved: bool) -> np.ndarray:
    """Those of `questions` (indices) that are to be sampled: all, or without those whose stored score is exactly 0."""
    return np.array([q for q in questions if not skip_solved or memory.scores[q] != 0.0], int)


def keep_best(
    memory: Memory,
    questions: np.ndarray,
    picks: list[str],
    scores: list[float],
    lengths: list[float],
    always: bool = False,
) -> Memory:
    """Memory with each pick that scores no worse than the stored one (with `always`: every pick) put in its place."""
    new = Memory(memory.references, list(memory.answers), list(memory.scores), list(memory.lengths))
    for q, answer, value, length in zip(questions, picks, scores, lengths):
        new.lengths[q] = length
        if always or new.scores[q] is None or value <= new.scores[q]:
            new.answers[q], new.scores[q] = answer, value
    return new
