import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from pmc_jax.evaluate import membership

ROWS = st.lists(st.lists(st.floats(-12, 0), max_size=12), min_size=1, max_size=6)
SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0, 7.0]), min_size=1, max_size=15)


def padded(rows, fill=math.nan):
    """Ragged rows as an array, NaN beyond their tokens, and the tokens a row."""
    out = np.full((len(rows), max(map(len, rows))), fill)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out, np.array([len(row) for row in rows])


def lowest(row, share):
    """min-k of one row, by its definition."""
    if not row:
        return math.nan
    k = max(1, int(share * len(row)))
    return -sum(sorted(row)[:k]) / k


@given(ROWS)
def test_loss(rows):
    np.testing.assert_allclose(
        membership.loss(*padded(rows)), [-sum(r) / len(r) if r else math.nan for r in rows], rtol=1e-12, atol=1e-12
    )


@given(ROWS, st.sampled_from([0.2, 0.4, 1.0]))
def test_min_k(rows, share):
    scores_N = membership.min_k(*padded(rows), share)
    assert scores_N.dtype == np.float64
    np.testing.assert_allclose(scores_N, [lowest(row, share) for row in rows], rtol=1e-12, atol=1e-12)


def test_min_k_takes_four_tenths_rounded_down_at_every_length():
    rows = [[-float(t) for t in range(1, n + 1)] for n in range(1, 260)]
    np.testing.assert_allclose(membership.min_k(*padded(rows)), [lowest(row, 0.4) for row in rows], rtol=1e-12)
    assert membership.min_k([[-3.0]], [1])[0] == 3 == membership.min_k([[-3.0, -1.0]], [2])[0], "one token at least"


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-12, 0), st.floats(-9, 0), st.sampled_from([0.0, 1e-9, 0.3, 4.0])), max_size=8),
        min_size=1,
        max_size=5,
    )
)
def test_min_k_plus_plus(rows):
    (logp, tokens), (mu, _), (var, _) = (padded([[t[i] for t in row] for row in rows]) for i in range(3))
    wanted = [lowest([(p - m) / math.sqrt(max(v, 1e-6)) for p, m, v in row], 0.4) for row in rows]
    np.testing.assert_allclose(membership.min_k_plus_plus(logp, mu, var, tokens), wanted, rtol=1e-9, atol=1e-9)


def test_zlib_counts_bytes_of_the_text():
    texts = ["ä" * 30, "", "The author's full name is Hsiao Yun-Hwa."]
    scores_N = membership.loss_by_zlib([2.0, 2.0, 2.0], texts)
    np.testing.assert_allclose(scores_N, [2 / len(zlib.compress(bytes(t, "utf-8"))) for t in texts], rtol=1e-15)
    assert len(set(scores_N)) == 3


def test_all_attacks_by_the_names_of_the_log():
    logp, mu, var = np.full((2, 3), -2.0), np.full((2, 3), -1.0), np.full((2, 3), 4.0)
    given_ = ([1.5, 2.5], ["a", "b"], logp, mu, var, [3, 2])
    scores = membership.scores(*given_)
    wanted = {
        "loss": [1.5, 2.5],
        "zlib": [1.5 / 9, 2.5 / 9],
        "min_k": [2, 2],
        "min_k_plus_plus": [0.5, 0.5],
    }
    assert scores.keys() == {f"mia_{name}" for name in wanted}
    for name, values in wanted.items():
        np.testing.assert_allclose(scores[f"mia_{name}"], values, rtol=1e-12, err_msg=name)
    assert membership.loss_by_reference([1.5, 2.5], [1.0, 3.0]).tolist() == [0.5, -0.5]


@given(SCORES, SCORES)
def test_auc_is_the_chance_that_holdout_scores_higher(forget, holdout):
    pairs = [(h > f) + (h == f) / 2 for f in forget for h in holdout]
    auc = membership.auc(forget, holdout)
    assert auc == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc == pytest.approx(roc_auc_score([0] * len(forget) + [1] * len(holdout), forget + holdout), abs=1e-12)
    assert membership.auc(holdout, forget) == pytest.approx(1 - auc, abs=1e-12)


def test_auc_at_the_edges():
    assert (
        membership.auc([0.1, 0.2], [0.3, 0.4]) == 1
        and membership.auc([0.3], [0.1]) == 0
        and membership.auc([0.3] * 5, [0.3] * 2) == 0.5
    )
    assert membership.auc([], [1.0]) is membership.auc([1.0], []) is membership.auc([math.nan], [1.0]) is None
    assert membership.auc([0.1, math.nan], [0.3, math.nan, math.inf, -math.inf]) == pytest.approx(2 / 3), (
        "NaN rows are left out, infinite ones rank"
    )


def test_auc_keeps_apart_what_float32_would_merge():
    assert membership.auc([1.0], [1.0 + 1e-12]) == 1


def test_auc_interval_is_the_bootstrap_of_either_side():
    rng = np.random.default_rng(5)
    forget, holdout = rng.normal(0, 1, 60).round(1), rng.normal(0.8, 1, 90).round(1)
    low, high = membership.auc_interval(forget, [*holdout, math.nan])
    wanted = stats.bootstrap(
        (forget, holdout), membership.auc, vectorized=False, n_resamples=500, method="percentile", rng=1
    ).confidence_interval
    assert low == pytest.approx(wanted.low, abs=0.015) and high == pytest.approx(wanted.high, abs=0.015)
    assert low < membership.auc(forget, holdout) < high
    assert (
        membership.auc_interval([1.0, 2.0], [3.0, 4.0]) == (1, 1) and membership.auc_interval([1.0], [3.0, 4.0]) is None
    )
