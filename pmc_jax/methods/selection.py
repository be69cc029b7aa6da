"""scores -> which sample of each question is kept."""

from typing import Any

import numpy as np

from pmc_jax.errors import UserError


def checked(scores_QS: Any) -> np.ndarray:
    """The scores as an array. UserError where they are no numbers, [questions, samples]."""
    try:
        scores_QS = np.asarray(scores_QS, np.float64)
    except (ValueError, TypeError):
        raise UserError("scores: must be numbers, as many for each question: what pmc_jax.score returns") from None
    if scores_QS.ndim != 2 or not scores_QS.shape[1] or np.isnan(scores_QS).any():
        raise UserError(f"scores of shape {scores_QS.shape}: must be numbers, [questions, samples], one sample or more")
    return scores_QS


def select(
    scores_QS: np.ndarray, kind: str = "lowest", temperature: float = 1.0, seeds: list[list[int]] | None = None
) -> np.ndarray:
    """Choose which sample of each question is kept.

    Args:
        scores_QS: how much each sample still holds of the original answer, 0..1, [questions, samples].
        kind: "lowest" takes the lowest score, the first of equals. "bradley_terry" takes sample i with probability
            softmax((1 - score_i) / temperature) (Bradley and Terry, 1952; drawn by the Gumbel-max trick).
        temperature: of the softmax.
        seeds: for bradley_terry, one list of ints a question, such as [seed, round, question].

    Returns:
        The index of each question's kept sample, int [questions].

    Raises:
        UserError: an unknown kind, or seeds that do not fit.
    """
    scores_QS = checked(scores_QS)
    if kind == "lowest":
        return np.argmin(scores_QS, axis=1)
    if kind != "bradley_terry":
        raise UserError(f"pmc.selection={kind!r}: choose one of lowest, bradley_terry")
    if seeds is None or len(seeds) != len(scores_QS):
        raise UserError(
            f"bradley_terry needs one list of seeds a question: {len(scores_QS)} questions, {len(seeds or [])} lists"
        )
    noise_QS = np.stack([np.random.default_rng(s).gumbel(size=scores_QS.shape[1]) for s in seeds])
    return np.argmax((1 - scores_QS) / temperature + noise_QS, axis=1)
