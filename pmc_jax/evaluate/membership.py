"""Membership inference: scores that tell rows a model was trained on from rows it never saw, and how well each does.

Every score is high for a row that looks unseen. N rows, T tokens padded on the right, log-probabilities in nats, scores
float64 [N]; NaN for a row without tokens. Numbers agree with open-unlearning's when `loss` is over all labels and min-k
and min-k++ leave the end token out.
"""

import zlib

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from pmc_jax.evaluate.interval import draws, middle

SHARE = 0.4  # of a row's tokens, the unlikeliest, that min-k and min-k++ look at


def inside(tokens_N: ArrayLike, T: int) -> np.ndarray:
    """bool [N, T]: which positions hold a token. tokens_N: tokens a row."""
    return np.arange(T) < np.asarray(tokens_N)[:, None]


def loss(logp_NT: ArrayLike, tokens_N: ArrayLike) -> np.ndarray:
    """Mean -log p over a row's tokens."""
    logp_NT, tokens_N = np.asarray(logp_NT, np.float64), np.asarray(tokens_N)
    sums_N = np.where(inside(tokens_N, logp_NT.shape[1]), logp_NT, 0).sum(axis=1)
    return -sums_N / np.where(tokens_N > 0, tokens_N, np.nan)


def loss_by_zlib(losses_N: ArrayLike, texts: list[str]) -> np.ndarray:
    """Loss over the bytes of the zlib-compressed answer: a dull text has a low loss without having been seen."""
    return np.asarray(losses_N, np.float64) / np.array(
        [len(zlib.compress(text.encode())) for text in texts], np.float64
    )


def loss_by_reference(losses_N: ArrayLike, reference_losses_N: ArrayLike) -> np.ndarray:
    """Loss less that of a reference model, which never saw the forget set."""
    return np.asarray(losses_N, np.float64) - np.asarray(reference_losses_N, np.float64)


def min_k(logp_NT: ArrayLike, tokens_N: ArrayLike, share: float = SHARE) -> np.ndarray:
    """Minus the mean of the lowest max(1, int(share * n)) of a row's n values."""
    logp_NT, tokens_N = np.asarray(logp_NT, np.float64), np.asarray(tokens_N)
    lowest_NT = np.sort(np.where(inside(tokens_N, logp_NT.shape[1]), logp_NT, np.inf), axis=1)
    taken_N = np.maximum(1, (share * tokens_N).astype(int))
    sums_N = np.where(inside(np.minimum(taken_N, tokens_N), logp_NT.shape[1]), lowest_NT, 0).sum(axis=1)
    return -sums_N / np.where(tokens_N > 0, taken_N, np.nan)


def min_k_plus_plus(
    logp_NT: ArrayLike, mu_NT: ArrayLike, var_NT: ArrayLike, tokens_N: ArrayLike, share: float = SHARE
) -> np.ndarray:
    """min-k of (log p - mu) / sqrt(max(var, 1e-6)): how unlikely a token is among what could have stood there.

    Args:
        logp_NT: log p of each token, nats.
        mu_NT: mean of log p over the vocabulary under p itself, computed in float32 or wider (bfloat16 gives NaN).
        var_NT: variance of log p, likewise.
        tokens_N: tokens a row.
        share: of the tokens that are looked at, the unlikeliest.
    """
    logp_NT, mu_NT, var_NT = (np.asarray(x, np.float64) for x in (logp_NT, mu_NT, var_NT))
    return min_k((logp_NT - mu_NT) / np.sqrt(np.maximum(var_NT, 1e-6)), tokens_N, share)


def scores(
    losses_N: ArrayLike, texts: list[str], logp_NT: ArrayLike, mu_NT: ArrayLike, var_NT: ArrayLike, tokens_N: ArrayLike
) -> dict[str, np.ndarray]:
    """The attacks that the likelihoods of one set of rows allow, by the names of the evaluation log.

    The two others: mia_reference is `loss_by_reference`; mia_gradnorm is the norm of each row's gradient (`gradients`).
    """
    return {
        "mia_loss": np.asarray(losses_N, np.float64),
        "mia_zlib": loss_by_zlib(losses_N, texts),
        "mia_min_k": min_k(logp_NT, tokens_N),
        "mia_min_k_plus_plus": min_k_plus_plus(logp_NT, mu_NT, var_NT, tokens_N),
    }


def auc(forget_scores_N: ArrayLike, holdout_scores_M: ArrayLike) -> float | None:
    """Area under the ROC curve with holdout = 1: the chance that a holdout row scores higher than a forget row.

    Ties count half. 1: the forget rows are recognised; a model that never saw them has about .38 on holdout10, not .5.
    NaN rows are left out; None where a set has no row left.
    """
    forget_N, holdout_M = (
        x[~np.isnan(x)] for x in (np.asarray(s, np.float64) for s in (forget_scores_N, holdout_scores_M))
    )
    if not forget_N.size or not holdout_M.size:
        return None
    ranks = rankdata(np.concatenate([forget_N, holdout_M]))  # only the order counts, and an infinite loss has a rank
    return float(roc_auc_score(np.repeat([0, 1], [forget_N.size, holdout_M.size]), ranks))


def auc_interval(forget_scores_N: ArrayLike, holdout_scores_M: ArrayLike) -> tuple[float, float] | None:
    """Bootstrap 95 % interval of `auc`, the rows of either side drawn anew; None where a side has fewer than two."""
    forget_N, holdout_M = (
        x[~np.isnan(x)] for x in (np.asarray(s, np.float64) for s in (forget_scores_N, holdout_scores_M))
    )
    if min(forget_N.size, holdout_M.size) < 2:
        return None
    ranks_N = rankdata(np.concatenate([forget_N, holdout_M]), method="dense") - 1  # equal scores, equal rank
    levels = int(ranks_N.max()) + 1
    counts_RL, others_RL = (
        np.stack([np.bincount(row, minlength=levels) for row in ranks[draws(len(ranks), seed)]])
        for seed, ranks in enumerate(np.split(ranks_N.astype(int), [forget_N.size]))
    )
    below_RL = np.cumsum(counts_RL, axis=1) - counts_RL / 2  # forget rows that score lower, ties counting half
    return middle((others_RL * below_RL).sum(axis=1) / (forget_N.size * holdout_M.size))
