"""How likely a model finds given answers: the token scores that all likelihood metrics share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.data.packing import Row
from pmc_jax.models import Decoder
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track
from pmc_jax.training.label_values import label_values

NO_LIMIT = 2**30  # tokens of a scored row: answers are not cut


class TokenScores(NamedTuple):
    """What the model says at each answer token of one row, the end token included: float32 [n] each, n labelled tokens.

    Attributes:
        log_probs: log p of the token.
        hits: 1 where it is the likeliest.
        means: mean of log p over the vocabulary, under p itself (min-k++).
        variances: variance of log p over the vocabulary, under p itself (min-k++).
    """

    log_probs: np.ndarray
    hits: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def token_statistics(logits_CV: jax.Array, labels_C: jax.Array) -> TokenScores:
    """TokenScores of C labels at once, in float32."""
    log_p_CV = jax.nn.log_softmax(logits_CV, axis=-1)
    p_CV = jnp.exp(log_p_CV)
    mean_C = jnp.sum(p_CV * log_p_CV, axis=-1)
    variance_C = jnp.sum(p_CV * jnp.square(log_p_CV), axis=-1) - jnp.square(mean_C)
    picked_C = jnp.take_along_axis(log_p_CV, labels_C[:, None], axis=1)[:, 0]
    return TokenScores(picked_C, (jnp.argmax(logits_CV, axis=-1) == labels_C).astype(jnp.float32), mean_C, variance_C)


def token_scores(model: Decoder, params: Any, rows: list[Row], on_progress: Any = None) -> list[TokenScores]:
    """The scores of every row's answer tokens.

    Args:
        model: the module.
        params: its parameters.
        rows: prompts with answers.
        on_progress: called with the number of rows scored.

    Returns:
        In the rows' order; a row without answer tokens has arrays of length 0.
    """
    scores = label_values(model, params, rows, token_statistics, on_progress=on_progress)
    return [TokenScores(*np.zeros((4, 0), np.float32)) if row is None else row for row in scores]


def tracked_scores(sampler: Sampler, rows: list[Row], progress: str, show: bool = True) -> list[TokenScores]:
    """`token_scores` under a sampler's model, with a progress line; how it samples does not matter.

    Args:
        sampler: of the model.
        rows: prompts with answers.
        progress: begins the progress line.
        show: whether it is shown.
    """
    with track(progress, len(rows), show=show) as advance:
        return token_scores(sampler.checkpoint.model, sampler.params, rows, advance)
