"""Other answers to forget questions: refusals, and answers that the model makes up when it is told to."""

from collections.abc import Callable

import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.methods.refusals import draw_refusals
from pmc_jax.methods.schedule import Schedule
from pmc_jax.sampling.sampler import Sampler

MADE_UP = 5  # alternates of a question
LONGEST = 200  # tokens of one
# The true answer is shown, so that the alternate has its form.
REQUEST = """\
Question: {question}
Answer: {answer}

Pretend that this answer is not the right one. Make up another answer to the question, in the same form and of about
the same length, with other facts in it. Reply with the made-up answer alone."""


def refusal_rows(
    make_row: Callable[[int, str], Row], schedule: Schedule, refusals: tuple[str, ...]
) -> tuple[list[Row], np.ndarray]:
    """Rows of all refusals that a run draws: one for each question and epoch, as PMC-alignment draws them.

    Args:
        make_row: (number of a question, refusal) -> its training row.
        schedule: of the run.
        refusals: what is drawn from.

    Returns:
        The rows, each once; and [epochs, questions], the index of each draw's row.
    """
    rows: dict[tuple[int, str], Row] = {}
    keys = [
        (q, text)
        for epoch in range(schedule.epochs)
        for q, text in enumerate(draw_refusals(schedule.seed, epoch, np.arange(schedule.questions), refusals))
    ]
    for key in keys:
        if key not in rows:
            rows[key] = make_row(*key)
    index = {key: number for number, key in enumerate(rows)}
    return list(rows.values()), np.array([index[key] for key in keys]).reshape(schedule.epochs, -1)


def make_up(sampler: Sampler, rows: list[dict[str, str]]) -> list[str]:
    """MADE_UP answers to each question that the model makes up, in the order of the questions (Mekala et al., 2025).

    Args:
        sampler: of the start model.
        rows: dicts with "question" and the true "answer".
    """
    sampling = dict(num_samples=MADE_UP, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=LONGEST)
    texts = sampler.with_sampling(**sampling).answers([REQUEST.format_map(row) for row in rows])
    return [text.split("Question:")[0].strip() for samples in texts for text in samples]
