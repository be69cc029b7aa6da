"""What an answer should be beside unlike the original one: long enough, and a refusal where PMC leads to refusals."""

import math
from typing import NamedTuple

import numpy as np

from pmc_jax.data.refusals import is_refusal


class Guard(NamedTuple):
    """What changes the score of an answer.

    Attributes:
        min_words: an answer of w < min_words words gets min(1, score + exp(-w)), as in the published runs; 0 = off.
        refusal_margin: a refusal gets max(0, score - refusal_margin); 0 = off.
        refusals: texts that count as refusals (`data.refusals.is_refusal`).
    """

    min_words: int = 0
    refusal_margin: float = 0.0
    refusals: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether a score can change."""
        return bool(self.min_words or self.refusal_margin)

    def guarded(self, value: float, answer: str) -> float:
        """The score of one answer."""
        words = len(answer.split())
        if words < self.min_words:
            value = min(1.0, value + math.exp(-words))
        if self.refusal_margin and is_refusal(answer, self.refusals):
            return self.lowest(value)
        return value

    def lowest(self, value: float) -> float:
        """The least that the score of an answer can become."""
        return max(0.0, value - self.refusal_margin)

    def scores(self, scores_QS: np.ndarray, answers_QS: list[list[str]]) -> np.ndarray:
        """The scores of all answers, float64 [Q, S]."""
        if not self.is_on:
            return scores_QS
        rows = zip(scores_QS.tolist(), answers_QS)
        return np.array([[self.guarded(*pair) for pair in zip(*row)] for row in rows]).reshape(scores_QS.shape)


NO_GUARD = Guard()
