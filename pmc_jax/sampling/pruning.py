"""Samples that are still being drawn -> those that have lost already: drawing them to their end would change
nothing.
"""

import math

from pmc_jax.data.prompts import Text
from pmc_jax.methods.rewards import penalise_short, rouge_l_recall, rouge_tokens
from pmc_jax.sampling.engine import Pruner, Seen, cut


def candidate_pruner(
    references: list[str], stored: list[float | None], num_samples: int, text: Text, min_words: int = 0, whole: int = 0
) -> Pruner:
    """Which samples cannot be kept any more, asked while they are drawn: they need not be drawn to their end, and what
    is kept is the same.

    ROUGE-L recall only grows with an answer. A sample that already holds more of the reference than the best finished
    sample or the stored answer does, or as much as an earlier sample, has lost.
    stored: the scores that count, None where any new pick replaces what is stored. whole: so many samples of each
    question always go on.
    """
    tokens_Q = [rouge_tokens(reference) for reference in references]
    best_Q = [
        (math.inf if s is None else s, num_samples) for s in stored
    ]  # (score, sample): an earlier sample wins against an equal one

    def prune(seen: dict[int, Seen]) -> set[int]:
        for row, (tokens, done) in seen.items():
            if done:
                q, sample = divmod(row, num_samples)
                answer = text.read(cut(tokens, text.end_tokens))
                value = penalise_short(rouge_l_recall(tokens_Q[q], rouge_tokens(answer)), answer, min_words)
                best_Q[q] = min(best_Q[q], (value, sample))
        lost = set()
        for row, (tokens, done) in seen.items():
            q, sample = divmod(row, num_samples)
            # Against nothing nobody loses; nor with too few tokens to hold as many words (a token of several words is
            # looked at a little later).
            if done or sample < whole or len(tokens) < best_Q[q][0] * len(tokens_Q[q]):
                continue
            if (rouge_l_recall(tokens_Q[q], rouge_tokens(text.read_part(tokens))), sample) > best_Q[q]:
                lost.add(row)
        return lost

    return prune
