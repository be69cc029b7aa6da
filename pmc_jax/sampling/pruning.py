"""Candidate pruning: samples that can no longer be the one that is kept need not be drawn to their end."""

import math
from typing import Any, Protocol

from pmc_jax.sampling.batches import Pruner, Seen, cut


class Read(Protocol):
    """What is read of an answer that is still being drawn. read: so many tokens. score: no longer answer has a lower
    one.
    """

    read: int
    score: float


class Bounded(Protocol):
    """A score of answers that has a lower bound for one that is still being drawn; questions are numbered."""

    def whole(self, question: int, tokens: list[int], part: Any = None) -> float:
        """The score of an answer that is finished. part: what was read of it before."""

    def read_on(self, question: int, tokens: list[int], part: Any = None) -> Read:
        """The beginning of an answer, read on from what was read before."""

    def units(self, question: int) -> int:
        """The fewest words or tokens with which an answer can reach a score of 1; 0 where that is unknown."""


def candidate_pruner(
    scorer: Bounded, stored: list[float | None], num_samples: int, end_tokens: tuple[int, ...], whole: int = 0
) -> Pruner:
    """A function that says, while samples are drawn, which of them can no longer be kept. What is kept stays the same.

    A sample has lost when the lower bound of its score is above the score of the best finished sample or of the stored
    answer, or equals that of an earlier sample.

    Args:
        scorer: scores whole answers, and bounds the scores of others.
        stored: the stored scores that count, one a question; None where any new pick replaces what is stored.
        num_samples: samples a question; row = question * num_samples + sample.
        end_tokens: all that stop an answer.
        whole: how many samples of each question are never pruned.

    Returns:
        A function: {row: what is seen of it} -> the rows that have lost.
    """
    units_Q = [scorer.units(q) for q in range(len(stored))]
    # (score, sample): an earlier sample wins against an equal one.
    best_Q = [(math.inf if s is None else s, num_samples) for s in stored]

    parts: dict[int, Read] = {}

    def may_have_lost(row: int, tokens: list[int]) -> bool:
        """Skipped: there is nothing to beat yet, or too few tokens to reach the best score (a token of several words is
        looked at a little later).
        """
        q, sample = divmod(row, num_samples)
        part = parts.get(row)
        known, rest = (part.score * units_Q[q], len(tokens) - part.read) if part else (0.0, len(tokens))
        return sample >= whole and best_Q[q][0] < math.inf and known + rest >= best_Q[q][0] * units_Q[q]

    def prune(seen: dict[int, Seen]) -> set[int]:
        for row, (tokens, done) in seen.items():
            if done:
                q, sample = divmod(row, num_samples)
                score = scorer.whole(q, cut(tokens, end_tokens), parts.pop(row, None))
                best_Q[q] = min(best_Q[q], (score, sample))
        lost = set()
        for row, (tokens, done) in seen.items():
            if done or not may_have_lost(row, tokens):
                continue
            q, sample = divmod(row, num_samples)
            parts[row] = scorer.read_on(q, tokens, parts.get(row))
            if (parts[row].score, sample) > best_Q[q]:
                lost.add(row)
                del parts[row]
        return lost

    return prune
