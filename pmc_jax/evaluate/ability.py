"""General ability: is a model still any good at what nobody asked it to forget? From likelihoods; numpy alone."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pmc_jax.evaluate.interval import draws, middle


def perplexity(nll_N: ArrayLike, tokens_N: ArrayLike) -> dict[str, Any]:
    """exp of the mean -log p a token of all texts together, with its bootstrap 95 % interval over texts.

    Args:
        nll_N: sum of -log p of each text's tokens, nats.
        tokens_N: how many these are.

    Returns:
        {"mean": 1 or more, None without tokens; "low", "high": None with fewer than two texts; "rows": N}.
    """
    nll_N, tokens_N = np.asarray(nll_N, np.float64), np.asarray(tokens_N, np.float64)
    if not tokens_N.sum():
        return {"mean": None, "low": None, "high": None, "rows": len(nll_N)}
    low, high = None, None
    if len(nll_N) > 1:
        texts_RN = draws(len(nll_N))
        low, high = middle(np.exp(nll_N[texts_RN].sum(axis=1) / np.maximum(tokens_N[texts_RN].sum(axis=1), 1)))
    return {"mean": float(np.exp(nll_N.sum() / tokens_N.sum())), "low": low, "high": high, "rows": len(nll_N)}
