"""Samples that are still being drawn -> those that have lost already: drawing them to their end would change
nothing.
"""

import math
from typing import Protocol

from pmc_jax.sampling.batches import Pruner, Seen, cut


class Bounded(Protocol):
    """A score of answers that has a lower bound for one that is still being drawn; questions are numbered."""

    def whole(self, question: int, tokens: list[int]) -> float:
        """The score of an answer that is finished."""

    def part(self, question: int, tokens: list[int]) -> float:
        """What the score of no answer that begins with these tokens is below."""

    def units(self, question: int) -> int:
        """So many words or tokens an answer must bring for a score of 1; 0 where that is unknown."""


def candidate_pruner(
    scorer: Bounded, stored: list[float | None], num_samples: int, end_tokens: tuple[int, ...], whole: int = 0
) -> Pruner:
    """Which samples cannot be kept any more, asked while they are drawn: they need not be drawn to their end, and what
    is kept is the same.

    A sample has lost when the lower bound of its score is above the score of the best finished sample or of the stored
    answer, or equals that of an earlier sample.

    Args:
        scorer: scores whole answers, and bounds the scores of others.
        stored: the stored scores that count, one a question; None where any new pick replaces what is stored.
        num_samples: samples a question; row = question * num_samples + sample.
        end_tokens: all that stop an answer.
        whole: so many samples of each question always go on.

    Returns:
        A function: {row: what is seen of it} -> the rows that have lost.
    """
    units_Q = [scorer.units(q) for q in range(len(stored))]
    # (score, sample): an earlier sample wins against an equal one.
    best_Q = [(math.inf if s is None else s, num_samples) for s in stored]

    def prune(seen: dict[int, Seen]) -> set[int]:
        for row, (tokens, done) in seen.items():
            if done:
                q, sample = divmod(row, num_samples)
                best_Q[q] = min(best_Q[q], (scorer.whole(q, cut(tokens, end_tokens)), sample))
        lost = set()
        for row, (tokens, done) in seen.items():
            q, sample = divmod(row, num_samples)
            # Against nothing nobody loses; nor with too few tokens to hold as many words (a token of several words is
            # looked at a little later).
            if done or sample < whole or best_Q[q][0] == math.inf or len(tokens) < best_Q[q][0] * units_Q[q]:
                continue
            if (scorer.part(q, tokens), sample) > best_Q[q]:
                lost.add(row)
        return lost

    return prune
