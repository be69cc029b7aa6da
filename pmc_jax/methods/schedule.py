"""Which questions, and which retain rows, each round has. Both are drawn from the seed alone."""

from typing import NamedTuple

import numpy as np

from pmc_jax.data.packing import Row

# First word of a numpy seed: these streams never meet. 5 is taken (`objectives.representation`).
ORDER, RETAIN_DRAW, SELECTION, REFUSAL_DRAW, RETAIN_ORDER, PREFIX_DRAW = 1, 2, 3, 4, 6, 7


class Schedule(NamedTuple):
    """How epochs are cut into rounds.

    Attributes:
        questions: how many prompts an epoch has: the forget questions, and those with a prefix beside them.
        questions_per_round: 0 = all.
        epochs: passes over the questions.
        seed: of the order of questions, and of the retain rows.
    """

    questions: int
    questions_per_round: int
    epochs: int
    seed: int

    @property
    def round_size(self) -> int:
        """The most questions of a round."""
        return min(self.questions_per_round or self.questions, self.questions)

    @property
    def rounds_per_epoch(self) -> int:
        """How many rounds cover all questions once."""
        return -(-self.questions // self.round_size)

    @property
    def rounds(self) -> int:
        """How many rounds a whole run has."""
        return self.epochs * self.rounds_per_epoch


def round_questions(schedule: Schedule, number: int) -> tuple[int, np.ndarray]:
    """The questions of a round. Each epoch goes through all of them in an order drawn from (seed, epoch).

    Args:
        schedule: how epochs are cut into rounds.
        number: of the round, from 0.

    Returns:
        The epoch, and the indices of the round's questions.
    """
    epoch, part = divmod(number, schedule.rounds_per_epoch)
    order = np.random.default_rng([ORDER, schedule.seed, epoch]).permutation(schedule.questions)
    size = schedule.round_size
    return epoch, order[part * size : (part + 1) * size]


def draw_retain_rows(seed: int, epoch: int, questions: np.ndarray, retain: list[Row], number: int = 0) -> list[Row]:
    """One retain row for each forget question, uniform, drawn from (seed, epoch, question, number).

    Args:
        seed: of the run.
        epoch: of the round.
        questions: indices of forget questions.
        retain: what is drawn from.
        number: which of several rows of a question, from 0.
    """
    keys = [[RETAIN_DRAW, seed, epoch, int(q), *([number] if number else [])] for q in questions]
    return [retain[np.random.default_rng(key).integers(len(retain))] for key in keys]
