"""A reward at work in a run: sampled token ids -> texts and scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pmc_jax.data.pieces import Pieces
from pmc_jax.data.prompts import Text
from pmc_jax.distributed import multihost
from pmc_jax.methods.guard import NO_GUARD, Guard
from pmc_jax.methods.rewards import Reward, checked_scores, resolve_reward


class Part(NamedTuple):
    """What is read of an answer that is still being drawn.

    Attributes:
        read: of so many tokens; 0 where nothing is kept.
        state: what the reward keeps of them.
        score: no longer answer has a lower one.
    """

    read: int
    state: Any
    score: float


class Scorer(NamedTuple):
    """A reward at work in a run: it scores answers as the sampler draws them, token ids.

    Attributes:
        name: the setting `pmc.reward`.
        reward: what it names.
        prepared_Q: what the reward prepared, one a question.
        text: reads token ids.
        guard: raises the scores of answers that are not wanted, and lowers those of refusals.
        begun_Q: of answers that are empty yet, what a reward with `running` keeps while they grow; one a question.
        pieces: reads on in answers that grow.
    """

    name: str
    reward: Reward
    prepared_Q: list[Any]
    text: Text
    guard: Guard = NO_GUARD
    begun_Q: Sequence[Any] = ()
    pieces: Pieces | None = None

    def at(self, questions: Sequence[int]) -> "Scorer":
        """The scorer of some of the questions, in this order."""
        begun_Q = [self.begun_Q[q] for q in questions] if self.begun_Q else ()
        return self._replace(prepared_Q=[self.prepared_Q[q] for q in questions], begun_Q=begun_Q)

    def with_more(self, questions: list[str], references: list[str], tokens_Q: list[list[int]]) -> "Scorer":
        """The scorer of these questions and their original answers too, after its own. tokens_Q: of the answers."""
        reward, running = self.reward, self.reward.running
        read = [self.text.read_tokens(tokens) for tokens in tokens_Q] if reward.reads == "tokens" else references
        prepared_Q = [reward.prepare(reference, question) for reference, question in zip(read, questions, strict=True)]
        begun_Q = [running.begin(prepared) for prepared in prepared_Q] if running else []
        return self._replace(prepared_Q=[*self.prepared_Q, *prepared_Q], begun_Q=[*self.begun_Q, *begun_Q])

    def read(self, tokens: list[int]) -> Any:
        """A whole answer, as the reward reads it."""
        return self.text.read_tokens(tokens) if self.reward.reads == "tokens" else self.text.read(tokens)

    def scores(self, tokens_QS: list[list[list[int]]]) -> tuple[list[list[str]], np.ndarray]:
        """Texts and scores, float64 [Q, S], of whole answers to all questions."""
        texts = [[self.text.read(tokens) for tokens in samples] for samples in tokens_QS]
        read = texts if self.reward.reads == "text" else [[self.read(t) for t in samples] for samples in tokens_QS]
        scores_QS = checked_scores(self.name, self.reward.score(self.prepared_Q, read), texts)
        return texts, self.guard.scores(scores_QS, texts)

    def whole(self, question: int, tokens: list[int], part: Part | None = None) -> float:
        """The score of one whole answer: the same as in `scores`. part: what was read of it before."""
        running = self.reward.running
        if running is None or self.guard.is_on or not self.prepared_Q[question]:
            return float(self.at([question]).scores([[tokens]])[1][0, 0])
        part = part or Part(0, self.begun_Q[question], 0.0)
        rest = tokens[part.read : -1 if tokens[-1] in self.text.end_tokens else None]
        if not running.units:
            units = rest if part.read else self.text.read_tokens(rest)
        elif part.read:
            units = self.pieces.read(rest)
        else:
            units = self.pieces.read_beginning(rest) if rest else []
            units = running.units(self.text.read(rest)) if units is None else units
        return running.score(running.extend(part.state, units))

    def read_on(self, question: int, tokens: list[int], part: Part | None = None) -> Part:
        """What no score of an answer that begins with these tokens is below. Only with a lower bound.

        Args:
            question: which one.
            tokens: of its beginning.
            part: what was read of it before.
        """
        prepared, running = self.prepared_Q[question], self.reward.running
        if running is None:
            read = self.text.read_tokens if self.reward.reads == "tokens" else self.text.read_part
            return Part(0, None, self.guard.lowest(self.reward.lower_bound(prepared, read(tokens))))
        part = part or Part(0, self.begun_Q[question], 0.0)
        end = self.pieces.last_cut(tokens, part.read) if running.units else len(tokens)
        if end == part.read:
            return part
        more = tokens[part.read : end]
        if not running.units:
            units = more if part.read else self.text.read_tokens(more)
        else:
            units = self.pieces.read(more) if part.read else self.pieces.read_beginning(more)
        if not units and not part.read:  # perhaps the beginning of the tag
            return part
        state = running.extend(part.state, units)
        return Part(end, state, self.guard.lowest(running.score(state)))

    def units(self, question: int) -> int:
        """How many words or tokens an answer must bring for a score of 1; 0 where that is unknown."""
        return self.reward.units(self.prepared_Q[question]) if self.reward.units else 0


def make_scorer(name: str, questions: list[str], references: list[str], text: Text, guard: Guard = NO_GUARD) -> Scorer:
    """The scorer of these questions and their original answers."""
    reward = resolve_reward(name)
    running = reward.running
    pieces = Pieces(text, running.units) if running and running.units else None
    scorer = Scorer(name, reward, [], text, guard, (), pieces)
    return scorer.with_more(questions, references, [text.answer(reference) for reference in references])


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
