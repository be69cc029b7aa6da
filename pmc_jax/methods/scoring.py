"""A reward at work in a run: sampled token ids -> texts and scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pmc_jax.data.prompts import Text
from pmc_jax.distributed import multihost
from pmc_jax.methods.rewards import Reward, checked_scores, guarded, resolve_reward


class Scorer(NamedTuple):
    """A reward at work in a run: it scores answers as the sampler draws them, token ids.

    Attributes:
        name: the setting `pmc.reward`.
        reward: what it names.
        prepared_Q: what the reward prepared, one a question.
        text: reads token ids.
        min_words: see `score`.
    """

    name: str
    reward: Reward
    prepared_Q: list[Any]
    text: Text
    min_words: int

    def at(self, questions: Sequence[int]) -> "Scorer":
        """The scorer of some of the questions, in this order."""
        return self._replace(prepared_Q=[self.prepared_Q[q] for q in questions])

    def read(self, tokens: list[int]) -> Any:
        """A whole answer, as the reward reads it."""
        return self.text.read_tokens(tokens) if self.reward.reads == "tokens" else self.text.read(tokens)

    def scores(self, tokens_QS: list[list[list[int]]]) -> tuple[list[list[str]], np.ndarray]:
        """Texts and scores, float64 [Q, S], of whole answers to all questions."""
        texts = [[self.text.read(tokens) for tokens in samples] for samples in tokens_QS]
        read = texts if self.reward.reads == "text" else [[self.read(t) for t in samples] for samples in tokens_QS]
        scores_QS = checked_scores(self.name, self.reward.score(self.prepared_Q, read), texts)
        return texts, guarded(scores_QS, texts, self.min_words)

    def whole(self, question: int, tokens: list[int]) -> float:
        """The score of one whole answer: the same as in `scores`."""
        return float(self.at([question]).scores([[tokens]])[1][0, 0])

    def part(self, question: int, tokens: list[int]) -> float:
        """What the score of no answer that begins with these tokens is below. Only with a lower bound."""
        read = self.text.read_tokens if self.reward.reads == "tokens" else self.text.read_part
        return self.reward.lower_bound(self.prepared_Q[question], read(tokens))

    def units(self, question: int) -> int:
        """How many words or tokens an answer must bring for a score of 1; 0 where that is unknown."""
        return self.reward.units(self.prepared_Q[question]) if self.reward.units else 0


def make_scorer(name: str, questions: list[str], references: list[str], text: Text, min_words: int) -> Scorer:
    """The scorer of these questions and their original answers."""
    reward = resolve_reward(name)
    read = (lambda r: text.read_tokens(text.answer(r))) if reward.reads == "tokens" else (lambda r: r)
    return Scorer(name, reward, [reward.prepare(read(r), q) for r, q in zip(references, questions)], text, min_words)


def scores_across_processes(scorer: Scorer, tokens_QS: list[list[list[int]]]) -> tuple[list[list[str]], np.ndarray]:
    """What `scorer.scores` returns; each process scores a share of the questions."""
    count = jax.process_count()
    shares = [range(process, len(tokens_QS), count) for process in range(count)]

    def score_share(questions: range) -> tuple[list[list[str]], list[list[float]]]:
        if not questions:
            return [], []
        texts, scores_QS = scorer.at(questions).scores([tokens_QS[q] for q in questions])
        return texts, scores_QS.tolist()

    texts, scores = [[]] * len(tokens_QS), [[]] * len(tokens_QS)
    for questions, (share_texts, share_scores) in zip(shares, multihost.map_across_processes(score_share, shares)):
        for q, samples, row in zip(questions, share_texts, share_scores):
            texts[q], scores[q] = samples, row
    return texts, np.array(scores)
