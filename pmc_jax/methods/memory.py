"""What PMC keeps of each question from one round to the next: the best answer so far, and its score."""

from typing import NamedTuple

import numpy as np

# A share of the questions that ends a run (`pmc.stop_solved`). A model may have learnt by heart what it keeps for the
# last ones: then nothing else is drawn, and they are never solved.
ENOUGH_SOLVED = 0.9
# Nats a token of the stored answers, below which the model gives them by itself. Solved only says that one sample of a
# question held nothing of the original.
LEARNT = 0.5


class Memory(NamedTuple):
    """What is remembered of each question; plain lists, so that it is saved as JSON.

    references: the untouched model's own greedy answer. answers: the stored answer, "" before the first round. scores:
    its score, None before.
    lengths: mean tokens of the last samples, by which prompts are sorted. rounds_solved: how many of the last rounds
    have left enough questions solved, and their answers learnt, to end soon.

    After the questions come their prefixed rows, without references of their own. Each epoch draws them anew, so what
    is stored of one is for its epoch only (`without_last_epoch`). It is the whole answer, the prefix included.
    """

    references: list[str]
    answers: list[str]
    scores: list[float | None]
    lengths: list[float]
    rounds_solved: int = 0


def without_last_epoch(memory: Memory, questions: np.ndarray) -> Memory:
    """Memory without the scores of those of `questions` that are prefixed rows: they ask something else now."""
    scores = list(memory.scores)
    for q in questions[questions >= len(memory.references)]:
        scores[q] = None
    return memory._replace(scores=scores)


def unsolved(memory: Memory, questions: np.ndarray, skip_solved: bool) -> np.ndarray:
    """Those of `questions` (indices) that are to be sampled: all, or without those that are solved."""
    return np.array([q for q in questions if not skip_solved or memory.scores[q] != 0.0], int)


def share_solved(memory: Memory) -> float:
    """The share of the questions that are solved; prefixed rows do not count."""
    return float(np.mean([score == 0.0 for score in memory.scores[: len(memory.references)]]))


def after_round(memory: Memory, loss: float) -> Memory:
    """Memory that has counted a round. loss: of the stored answers in its updates, nats a token."""
    is_enough = share_solved(memory) >= ENOUGH_SOLVED and loss < LEARNT
    return memory._replace(rounds_solved=memory.rounds_solved + 1 if is_enough else 0)


def keep_best(
    memory: Memory,
    questions: np.ndarray,
    picks: list[str],
    scores: list[float],
    lengths: list[float],
    always: bool = False,
) -> Memory:
    """Memory with each pick that scores no worse than the stored one (with `always`: every pick) put in its place."""
    new = memory._replace(answers=list(memory.answers), scores=list(memory.scores), lengths=list(memory.lengths))
    for q, answer, value, length in zip(questions, picks, scores, lengths):
        new.lengths[q] = length
        if always or new.scores[q] is None or value <= new.scores[q]:
            new.answers[q], new.scores[q] = answer, value
    return new
