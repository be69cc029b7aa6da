"""answers -> scores: how much of the original answer is left, lower is better. The reward is 1 minus the score."""

import functools
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data import given
from pmc_jax.errors import UserError, first_line
from pmc_jax.methods import rouge, similarity
from pmc_jax.methods.guard import Guard
from pmc_jax.registry import resolve

LEAST_SEEN = 0.5  # share of the letters and digits of a reference that a score must see


class Running(NamedTuple):
    """A score that is kept up while an answer grows, so that what is there is never read again. States are values.

    Attributes:
        units: text -> what the score counts in it; of two texts with a space between, those of both. None where
            answers are token ids: these are what is counted.
        begin: prepared -> the state of an empty answer.
        extend: (state, more units) -> the state of the longer answer.
        score: state -> the score of the answer so far, the same number as `Reward.score` gives.
    """

    units: Callable[[str], Sequence[Any]] | None
    begin: Callable[[Any], Any]
    extend: Callable[[Any, Sequence[Any]], Any]
    score: Callable[[Any], float]


class Reward(NamedTuple):
    """A score of how much an answer still holds of a reference: 0 nothing, 1 everything. PMC keeps the lowest.

    A reference or an answer is a text, or a list of token ids where `reads` is "tokens". An answer's score must not
    depend on the answers beside it.

    Attributes:
        prepare: (reference, question) -> what is worth computing once a reference; `question` is a text.
        score: (prepared_Q, answers_QS) -> scores in 0..1, [Q, S], of lists of lists of answers.
        can_score: text -> whether the score can see anything in this reference.
        sees: what it can see, for an error message.
        lower_bound: (prepared, beginning) -> a lower bound on the score of every answer that starts so; None where
            there is none. It permits candidate pruning. A beginning ends between two words, or two tokens.
        units: prepared -> the fewest words or tokens with which an answer can reach a score of 1. Each brings an equal
            share: too short an answer is not asked for its lower bound. None: every one is.
        reads: "text" or "tokens".
        share_seen: text -> the share of its letters and digits that the score sees, 0..1, or None where it has none;
            None for a score that sees all. A reference of which it sees less than `LEAST_SEEN` is refused.
        running: keeps a lower bound up as an answer grows. None: each beginning is read as a whole.
    """

    prepare: Callable[[Any, str], Any]
    score: Callable[[list[Any], list[list[Any]]], Any]
    can_score: Callable[[str], bool] = lambda text: bool(text.strip())
    sees: str = "characters"
    lower_bound: Callable[[Any, Any], float] | None = None
    units: Callable[[Any], int] | None = None
    reads: str = "text"
    share_seen: Callable[[str], float | None] | None = None
    running: Running | None = None


def per_answer(one: Callable[[Any, Any], float], prepare: Callable[[Any, str], Any], grows: bool, **rest) -> Reward:
    """A Reward from the score of one answer.

    Args:
        one: (prepared, answer) -> 0..1.
        prepare: see `Reward`.
        grows: whether the score of an answer never falls when words or tokens are added: then it is its own lower
            bound.
        **rest: the other fields of `Reward`.
    """

    def score(prepared_Q: list[Any], answers_QS: list[list[Any]]) -> list[list[float]]:
        return [[one(prepared, answer) for answer in answers] for prepared, answers in zip(prepared_Q, answers_QS)]

    return Reward(prepare, score, lower_bound=one if grows else None, **rest)


def from_function(function: Callable[[str, list[str]], Sequence[float]]) -> Reward:
    """A Reward from a function of the user's own: (reference, answers) -> one score in 0..1 an answer.

    It is not asked about a blank reference, of which nothing can be left: the score is 0.
    """

    def ask(reference: str, answers: list[str]) -> Sequence[float]:
        try:
            return function(reference, answers)
        except Exception as error:  # whatever the user's own function raises
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"pmc.reward: your own function failed: {type(error).__name__}: {first_line(error)[:120]} "
                f"({last.filename}, line {last.lineno}); it is given (reference, answers)"
            ) from error

    def score(references: list[str], answers_QS: list[list[str]]) -> list[Sequence[float]]:
        return [
            ask(reference, answers) if reference.strip() else [0.0] * len(answers)
            for reference, answers in zip(references, answers_QS)
        ]

    return Reward(lambda reference, question: reference, score)


def _rouge(
    one: Callable[[list[str], list[str]], float], running: tuple[Callable, Callable, Callable] | None, words: int = 1
) -> Reward:
    """A Reward from a ROUGE score of tokens that needs at least so many words. running: begin, extend and score of a
    score that only grows.
    """
    return per_answer(
        lambda reference, answer: one(reference, rouge.rouge_tokens(answer)),
        lambda reference, question: rouge.rouge_tokens(reference),
        grows=running is not None,
        running=Running(rouge.rouge_tokens, *running) if running else None,
        can_score=lambda text: len(rouge.rouge_tokens(text)) >= words,
        sees="words of a-z and 0-9" if words == 1 else "pairs of words of a-z and 0-9",
        units=len,
        share_seen=rouge.share_seen,
    )


REWARDS = {
    "rouge_l_recall": _rouge(rouge.rouge_l_recall, (rouge.begin_common, rouge.extend_common, rouge.common_recall)),
    "rouge_l_f1": _rouge(rouge.rouge_l_f1, None),
    "rouge_1_recall": _rouge(
        rouge.rouge_1_recall, (functools.partial(rouge.begin_runs, n=1), rouge.extend_runs, rouge.runs_recall)
    ),
    "rouge_2_recall": _rouge(
        rouge.rouge_2_recall, (functools.partial(rouge.begin_runs, n=2), rouge.extend_runs, rouge.runs_recall), words=2
    ),
    "content_recall": per_answer(
        similarity.share_of_words,
        lambda reference, question: similarity.words_to_lose(question, reference),
        grows=True,
        can_score=lambda text: bool(similarity.stemmed_words(text)),
        sees="words of letters and digits, in any script,",
        units=len,
        running=Running(
            functools.partial(similarity.stemmed_words, singles=True),
            lambda content: (content, frozenset()),
            lambda state, words: (state[0], state[1] | state[0].intersection(words)),
            lambda state: len(state[1]) / len(state[0]) if state[0] else 0.0,
        ),
    ),
    "chrf": per_answer(similarity.chrf, lambda reference, question: reference, grows=False),
    "longest_common_run": per_answer(
        similarity.longest_common_run,
        lambda reference, question: reference,
        grows=True,
        units=len,
        reads="tokens",
        running=Running(None, similarity.begin_run, similarity.extend_run, similarity.run_score),
    ),
}


def resolve_reward(name: str) -> Reward:
    """The Reward that the setting `pmc.reward` names: an entry of REWARDS, or a Reward or function of the user's own.

    Raises:
        UserError: there is none, or it is neither.
    """
    reward = resolve("pmc.reward", name, REWARDS)
    if isinstance(reward, Reward):
        return reward
    if not callable(reward):
        raise UserError(
            f"pmc.reward={name!r}: must be a pmc_jax.methods.rewards.Reward or a function (reference, answers) -> "
            f"scores, not a {type(reward).__name__}"
        )
    return from_function(reward)


def check_references(name: str, questions: Sequence[str], references: Sequence[str]) -> None:
    """UserError for an original answer that the score cannot see, or hardly.

    Whatever is sampled would count as unlike it, and nothing would be forgotten. An answer that is empty, or all
    punctuation, holds nothing that could be forgotten.
    """
    reward = resolve_reward(name)
    for row, (_, reference) in enumerate(zip(questions, references, strict=True), 1):
        share = reward.share_seen(reference) if reward.share_seen else 1.0
        if similarity.says_something(reference) and not (reward.can_score(reference) and (share or 0.0) >= LEAST_SEEN):
            seen = f" ({share:.0%} of its letters and digits)" if reward.share_seen and share else ""
            words = similarity.stemmed_words(reference)
            hint = "content_recall sees every script" if words else "longest_common_run sees every token"
            raise UserError(
                f"forget row {row}: pmc.reward={name!r} sees {reward.sees} only, too little{seen} of the model's "
                f"answer; pmc.reward={hint}"
            )


def checked_scores(name: str, scores: Any, answers_QS: list[list[Any]]) -> np.ndarray:
    """The scores as float64 [Q, S]; UserError where they are not one number in 0..1 an answer."""
    shape = (len(answers_QS), len(answers_QS[0]) if answers_QS else 0)
    try:
        scores_QS = np.asarray(scores, np.float64)
    except (ValueError, TypeError):
        scores_QS = np.zeros(0)
    if scores_QS.shape != shape and answers_QS:
        raise UserError(f"pmc.reward={name!r}: must return one number an answer, {shape[1]} a question")
    wrong = scores_QS[~((scores_QS >= 0) & (scores_QS <= 1))]
    if len(wrong):
        raise UserError(f"pmc.reward={name!r}: a score must be in 0..1, not {wrong[0]}")
    return scores_QS.reshape(shape)


def score(
    references: list[str],
    answers: list[list[str]],
    kind: str = "rouge_l_recall",
    min_words: int = 0,
    questions: list[str] | None = None,
    tokenizer: Any = None,
) -> np.ndarray:
    """Score how much of each reference its answers still hold: 0 nothing, 1 everything. The reward is 1 minus this.

    Args:
        references: one text a question.
        answers: the texts to be scored, [question][sample]; as many of each question.
        kind: a name in `REWARDS`, or "module:attribute" of your own function or Reward.
        min_words: an answer of w < min_words words gets min(1, score + exp(-w)), so that saying nothing is no way out.
        questions: one text a reference, for scores that look at it (content_recall).
        tokenizer: a Hugging Face tokenizer, for scores of token ids (longest_common_run).

    Returns:
        Scores, float64 [question, sample].

    Raises:
        UserError: an unknown kind, or lists that do not fit.
    """
    reward = resolve_reward(kind)
    references = given.texts(references, "references", may_be_blank=True)
    answers = given.listed(answers, "answers", "a list of texts for each reference", "[[answer], ...]")
    answers = [given.texts(samples, f"answers[{i}]", may_be_blank=True) for i, samples in enumerate(answers)]
    if len(references) != len(answers):
        raise UserError(
            f"{len(references)} references but {len(answers)} lists of answers: one list a question is needed"
        )
    if questions is not None and len(questions) != len(references):
        raise UserError(f"{len(references)} references but {len(questions)} questions")
    if len({len(samples) for samples in answers}) > 1:
        raise UserError("every question needs the same number of answers")
    if reward.reads == "tokens" and tokenizer is None:
        raise UserError(f"pmc.reward={kind!r} compares token ids: give score(..., tokenizer=...)")

    def read(text: str) -> Any:
        return tokenizer(text, add_special_tokens=False)["input_ids"] if reward.reads == "tokens" else text

    prepared_Q = [reward.prepare(read(r), q) for r, q in zip(references, questions or [""] * len(references))]
    scores = reward.score(prepared_Q, [[read(answer) for answer in samples] for samples in answers])
    return Guard(min_words).scores(checked_scores(kind, scores, answers), answers)
