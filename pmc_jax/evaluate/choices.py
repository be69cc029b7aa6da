"""Multiple choice by the letter: the prompt of WMDP (Li et al., arXiv 2403.03218), MMLU and ARC in one form.

    QUESTION
    A. ...
    D. ...
    Answer:

The choice whose letter is the likeliest next is the model's. No examples stand before the question, and no template is
used. A letter says less than an answer in words: a model that lost the letter may still tell all when it is asked
openly.
"""

import string
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.questions import Rows, problem_of
from pmc_jax.errors import UserError
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.raw_text import continuation_scores
from pmc_jax.sampling.sampler import Sampler


class Choices(NamedTuple):
    """One question: its choices in their order, and which of them is right, from 0."""

    question: str
    choices: list[str]
    right: int

    @property
    def prompt(self) -> str:
        """What the model reads."""
        lines = [f"{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, self.choices)]
        return "\n".join([self.question.strip(), *lines, "Answer:"])


def read_choices(row: dict[str, Any]) -> Choices:
    """One row of a data set.

    Args:
        row: question; choices, a list, or {"text", "label"} as ARC has them; answer, an index from 0 or a label, also
            called answerKey.

    Raises:
        UserError: what is wrong with the row.
    """
    choices, answer = row.get("choices"), row.get("answer", row.get("answerKey"))
    labels = list(string.ascii_uppercase)
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), list(choices.get("label") or [])
    if problem := problem_of(row.get("question")):
        raise UserError(f"'question' {problem}")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise UserError("'choices' is no list of 2 to 26 texts")
    if problem := next(filter(None, map(problem_of, choices)), ""):
        raise UserError(f"one of 'choices' {problem}")
    right = answer if isinstance(answer, int) else labels.index(answer) if answer in labels else -1
    if not 0 <= right < len(choices):
        raise UserError(f"'answer' is {answer!r}: neither an index from 0 nor the letter of one of {len(choices)}")
    return Choices(row["question"], choices, right)


def read_all(rows: Rows, source: str) -> list[Choices]:
    """`read_choices` of every row; a UserError names source and row."""
    read = []
    for number, row in enumerate(rows, 1):
        try:
            read.append(read_choices(row))
        except UserError as error:
            raise UserError(f"{source}, row {number}: {error}") from None
    return read


def choice_scores(sampler: Sampler, asked: list[Choices], progress: str) -> list[np.ndarray]:
    """log p of each choice's letter after the prompt, nats: for each question an array, float64 [choices]."""
    letters = [[f" {letter}" for letter, _ in zip(string.ascii_uppercase, one.choices)] for one in asked]
    return continuation_scores(sampler, [one.prompt for one in asked], letters, progress)


def accuracy(asked: list[Choices], scores: list[np.ndarray]) -> dict[str, Any]:
    """How often the right letter is the likeliest: the mean over questions with its interval, and that of chance.

    Args:
        asked: the questions.
        scores: of `choice_scores`; of equal ones the first counts.
    """
    hits = [float(np.argmax(own) == one.right) for one, own in zip(asked, scores, strict=True)]
    chance = float(np.mean([1 / len(one.choices) for one in asked])) if asked else None
    return mean_with_interval(hits)._asdict() | {"chance": chance}
