"""Prefix-PMC: a forget question is asked again with the first words of the model's own original answer already given.

Plain PMC empties the answer to the question. What follows the original answer's own first words stays likely: whoever
knows the beginning still gets the rest. So there are `rows` more prompts beside each question, each with a prefix of
the original answer. The rest of that answer is what they are led away from, and only what was sampled behind the prefix
is trained on. The prefixes are the model's own words, never the truth. They are drawn anew in each epoch.
"""

import itertools
import math
import re
from typing import NamedTuple

import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.data.prompts import Text
from pmc_jax.methods.schedule import PREFIX_DRAW


class Prefixes(NamedTuple):
    """The settings of the prefixes.

    Attributes:
        rows: beside each question; 0 = plain PMC.
        low: share of the answer's words that a prefix has at least.
        high: share that it has at most.
    """

    rows: int
    low: float
    high: float


NO_PREFIXES = Prefixes(0, 0.0, 0.0)


class Split(NamedTuple):
    """An original answer in two. A plain question has nothing of it given, and all of it is the rest.

    Attributes:
        given: token ids that stand in the prompt.
        prefix: their text.
        rest: the text that follows.
        draft: the token ids that follow, the end token included.
    """

    given: list[int]
    prefix: str
    rest: str
    draft: list[int]


class Original:
    """An original answer, and where it can be cut: behind each of its words but the last.

    Args:
        text: tokenizer and template.
        answer: the model's own.
        room: tokens that a prefix may have.
    """

    def __init__(self, text: Text, answer: str, room: int):
        self.answer, self.tokens, spans = answer, text.answer(answer), text.spans(answer)
        self.text, self.begin = text.answer_text(answer), len(text.answer_text(""))
        ends = [word.end() for word in re.finditer(r"\S+", self.text) if word.end() > self.begin]
        # A token that reaches over the end of a word belongs to the rest.
        cuts = [next((i for i, (_, end) in enumerate(spans) if end > word), len(spans)) for word in ends[:-1]]
        self.cuts = [(cut, spans[cut][0]) for cut in cuts if 0 < cut < min(room + 1, len(spans))]
        self.words = len(ends)

    def split(self, words: int) -> Split:
        """The answer cut behind so many of its words, or behind as many as can be given."""
        if not words or not self.cuts:
            return Split([], "", self.answer, self.tokens)
        cut, start = self.cuts[min(words, len(self.cuts)) - 1]
        return Split(self.tokens[:cut], self.text[self.begin : start], self.text[start:].strip(), self.tokens[cut:])


def word_range(prefixes: Prefixes, words: int) -> tuple[int, int]:
    """The fewest and the most words that are given of an answer of so many; one at least."""
    fewest = max(1, math.ceil(prefixes.low * words))
    return fewest, max(fewest, math.floor(prefixes.high * words))


def draw_splits(prefixes: Prefixes, originals: list[Original], seed: int, epoch: int) -> list[Split]:
    """The prefixed rows of an epoch: all questions in order, as many times as there are rows beside each. How many
    words each has given is uniform, drawn from (seed, epoch, question, row).
    """

    def draw(row: int, question: int, words: int) -> int:
        rng = np.random.default_rng([PREFIX_DRAW, seed, epoch, question, row])
        return int(rng.integers(*word_range(prefixes, words), endpoint=True))

    return [o.split(draw(row, q, o.words)) for row in range(prefixes.rows) for q, o in enumerate(originals)]


def behind_prefix(row: Row, given: list[int]) -> Row:
    """The training row without labels on what is given of its answer; the same row where nothing is.

    A continuation that changes how the prefix is tokenised has its labels from there on.
    """
    answer = row.tokens[row.start :]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(answer[:-1], given))
    return row._replace(start=row.start + sum(1 for _ in same))
