"""PMC-alignment: forget questions are led to refusals while their stored answers still hold something.

The authors' variant of partial model collapse (Scholten et al., ICLR 2026). Its loss is that of PMC plus
refusal_weight * s_mean * CE(refusal | question), where s_mean is the mean stored score of the batch's questions: the
term fades out as they are solved. Refusals become likely enough to be sampled, and then win the selection.
"""

import numpy as np

from pmc_jax.data.packing import REFUSAL, Row
from pmc_jax.methods.guard import NO_GUARD, Guard
from pmc_jax.methods.schedule import REFUSAL_DRAW


def draw_refusals(seed: int, epoch: int, questions: np.ndarray, refusals: tuple[str, ...]) -> list[str]:
    """One refusal for each forget question, uniform, drawn from (seed, epoch, question)."""
    return [
        refusals[np.random.default_rng([REFUSAL_DRAW, seed, epoch, int(q)]).integers(len(refusals))] for q in questions
    ]


def weigh_refusals(rows: list[Row], guard: Guard = NO_GUARD) -> list[Row]:
    """The rows of a batch, its refusals weighted by the mean stored score; without refusals where that is 0.

    With a margin, the refusals of solved questions are left out, and the mean is that of the others. Otherwise the last
    question of a batch that is solved but for it would hardly be led to one: its own answer is learnt by heart by then.

    Args:
        rows: of one batch. The weight of a refusal is the stored score of its question.
        guard: says what is solved, where it has a margin.
    """
    if guard.refusal_margin:
        rows = [row for row in rows if row.group != REFUSAL or not guard.is_solved(row.weight)]
    scores = [row.weight for row in rows if row.group == REFUSAL]
    mean = float(np.mean(scores)) if scores else 0.0
    rows = [row._replace(weight=mean) if row.group == REFUSAL else row for row in rows]
    return [row for row in rows if row.group != REFUSAL or mean]
