"""PMC-alignment: forget questions are led to refusals while their stored answers still hold something.

The authors' variant of partial model collapse (Scholten et al., ICLR 2026). Its loss is that of PMC plus
refusal_weight * s_mean * CE(refusal | question), where s_mean is the mean stored score of the batch's questions: the
term fades out as they are solved. Refusals become likely enough to be sampled, and then win the selection.
"""

import numpy as np

from pmc_jax.data.packing import REFUSAL, Row
from pmc_jax.methods.schedule import REFUSAL_DRAW


def draw_refusals(seed: int, epoch: int, questions: np.ndarray, refusals: tuple[str, ...]) -> list[str]:
    """One refusal for each forget question, uniform, drawn from (seed, epoch, question)."""
    return [
        refusals[np.random.default_rng([REFUSAL_DRAW, seed, epoch, int(q)]).integers(len(refusals))] for q in questions
    ]


def weigh_refusals(rows: list[Row]) -> list[Row]:
    """The rows of a batch, its refusals weighted by the mean stored score; without refusals where that is 0.

    Args:
        rows: of one batch. The weight of a refusal is the stored score of its question.
    """
    scores = [row.weight for row in rows if row.group == REFUSAL]
    mean = float(np.mean(scores)) if scores else 0.0
    rows = [row._replace(weight=mean) if row.group == REFUSAL else row for row in rows]
    return [row for row in rows if row.group != REFUSAL or mean]
