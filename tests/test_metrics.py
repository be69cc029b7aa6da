import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmc_jax.errors import UserError
from pmc_jax.evaluate import metrics

LOSS = st.floats(0, 30)
HITS = st.lists(st.lists(st.sampled_from([True, True, False]), max_size=9), min_size=1, max_size=6)


def padded(rows, fill):
    """Ragged rows as an array and their lengths; `fill` stands in the padding."""
    out = np.full((len(rows), max(map(len, rows))), fill)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out, np.array([len(row) for row in rows])


def test_ragged_rows_are_padded_and_may_lose_their_end_token():
    rows = [[1.0, 2.0, 3.0], [], [4.0]]
    values, lengths = metrics.padded(rows)
    assert values.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]] and lengths.tolist() == [3, 0, 1]
    values, lengths = metrics.padded(rows, leave_out=1)
    assert values.tolist() == [[1, 2], [0, 0], [0, 0]] and lengths.tolist() == [2, 0, 0] and values.dtype == np.float64
    assert metrics.padded([])[0].shape == (0, 0) and metrics.extraction_strength(
        *metrics.padded([[1.0]], 1)
    ).tolist() == [0]


@given(st.lists(st.tuples(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=3, max_size=3)), min_size=1, max_size=6))
def test_normalised_probability(rows):
    shares_N = metrics.normalised_probability([r for r, _ in rows], [w for _, w in rows])
    np.testing.assert_allclose(shares_N, [r / (r + w[0] + w[1] + w[2] + 1e-10) for r, w in rows], rtol=1e-12)


def test_equally_likely_options_are_worth_a_quarter_and_impossible_ones_nothing():
    np.testing.assert_allclose(metrics.normalised_probability([0.2, 0.0], [[0.2] * 3, [0.0] * 3]), [0.25, 0], atol=1e-9)


@given(st.lists(st.tuples(LOSS, st.lists(LOSS, min_size=5, max_size=5)), min_size=1, max_size=6))
def test_truth_ratio_is_over_the_geometric_mean_of_the_wrong_answers(rows):
    ratios_N = metrics.truth_ratio_geometric([r for r, _ in rows], [w for _, w in rows])
    wanted = [statistics.geometric_mean([math.exp(-x) for x in w]) / (math.exp(-r) + 1e-10) for r, w in rows]
    np.testing.assert_allclose(ratios_N, wanted, rtol=1e-9)


def test_truth_ratio_is_not_the_arithmetic_one():
    wrong = [1.0, 3.0]
    arithmetic = (math.exp(-1) + math.exp(-3)) / 2 / math.exp(-2)
    assert metrics.truth_ratio_geometric([2.0], [wrong])[0] == pytest.approx(1, abs=1e-8)
    assert arithmetic > 1.5


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_aggregates_of_truth_ratios(ratios):
    assert metrics.forget_truth_ratio(ratios) == pytest.approx(
        sum(min(r, 1 / r) for r in ratios) / len(ratios), rel=1e-12
    )
    assert metrics.utility_truth_ratio(ratios) == pytest.approx(
        sum(max(0, 1 - r) for r in ratios) / len(ratios), rel=1e-12, abs=1e-15
    )


def test_aggregates_at_the_edges():
    assert metrics.forget_truth_ratio([0.0, 1.0, 4.0, 0.25]) == pytest.approx((0 + 1 + 0.25 + 0.25) / 4)
    assert metrics.utility_truth_ratio([0.0, 1.0, 4.0, 0.25]) == pytest.approx((1 + 0 + 0 + 0.75) / 4)
    assert metrics.forget_truth_ratio([0.0]) == 0 and metrics.utility_truth_ratio([0.0]) == 1


@given(st.lists(st.floats(1e-3, 1), min_size=9, max_size=9))
def test_model_utility_is_the_harmonic_mean(nine):
    assert metrics.model_utility(nine) == pytest.approx(statistics.harmonic_mean(nine), rel=1e-12)


@pytest.mark.parametrize("zero", range(9))
def test_one_zero_makes_model_utility_zero(zero):
    nine = [0.5] * 9
    nine[zero] = 0.0
    assert metrics.model_utility(nine) == 0 and metrics.model_utility([0.5] * 9) == pytest.approx(0.5)


@pytest.mark.parametrize("parts", [[0.5] * 8, [0.5] * 10, [], [0.5] * 8 + [-0.1], [0.5] * 8 + [float("nan")]])
def test_model_utility_of_anything_else_is_refused(parts):
    with pytest.raises(UserError, match="nine"):
        metrics.model_utility(parts)


def largest_gap(one, other):
    """The KS distance, by its definition."""
    return max(
        abs(sum(x <= t for x in one) / len(one) - sum(x <= t for x in other) / len(other)) for t in [*one, *other]
    )


@given(*[st.lists(st.sampled_from([0.1, 0.2, 0.2, 0.5, 1.0, 2.0, 9.0]), min_size=1, max_size=15)] * 2)
def test_distance_of_forget_quality_with_ties(one, other):
    quality = metrics.forget_quality(one, other)
    assert quality.reason is None and quality.distance == pytest.approx(largest_gap(one, other), abs=1e-12)
    assert quality.log10_p == pytest.approx(math.log10(quality.p), abs=1e-12)
    assert metrics.forget_quality(other, one).p == pytest.approx(quality.p, rel=1e-9), "two-sided"


@settings(max_examples=40)
@given(st.permutations(range(8)), st.integers(2, 6))
def test_p_of_forget_quality_is_the_share_of_deals_that_lie_as_far_apart(values, n):
    quality = metrics.forget_quality(values[:n], values[n:])
    deals = [set(deal) for deal in itertools.combinations(range(8), n)]
    gaps = [largest_gap(sorted(deal), sorted(set(range(8)) - deal)) for deal in deals]
    assert quality.p == pytest.approx(sum(gap >= quality.distance - 1e-9 for gap in gaps) / len(gaps), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_forget_quality_says_nothing_where_scipy_rounds():
    assert metrics.forget_quality(np.arange(400), np.arange(400) + 0.5)[:3] == (1, 0, pytest.approx(1 / 400))


@pytest.mark.parametrize("n", [2, 5, 40])
def test_forget_quality_of_sets_that_do_not_overlap(n):
    quality = metrics.forget_quality(np.arange(n), np.arange(n) + 100)
    assert quality.distance == 1
    assert quality.p == pytest.approx(2 / math.comb(2 * n, n), rel=1e-9), (
        "two of all the ways to deal 2n values to two sets"
    )


def test_forget_quality_of_the_same_rows_is_one():
    assert metrics.forget_quality([0.3, 0.3, 2.0], [2.0, 0.3, 0.3]) == (1.0, 0.0, 0.0, None)


def test_forget_quality_below_the_smallest_float_has_a_logarithm():
    quality = metrics.forget_quality(np.zeros(4000), np.ones(4000))
    assert quality.p == 0 and quality.distance == 1
    assert quality.log10_p == pytest.approx((math.log(2) - 4000) / math.log(10))


@pytest.mark.parametrize(
    "ours, theirs, why",
    [
        ([0.5], None, "no log of a retain model"),
        ([], [0.5], "no truth ratio of the model"),
        ([0.5], [], "no truth ratio of the retain model"),
        ([0.5, math.nan, math.inf], [0.5], "2 truth ratios of the model are not finite"),
        ([0.5], [math.nan], "1 truth ratios of the retain model are not finite"),
    ],
)
def test_forget_quality_not_computed_says_why(ours, theirs, why):
    p, log10_p, distance, reason = metrics.forget_quality(ours, theirs)
    assert p is log10_p is distance is None and reason.startswith(why)


def strength(row, floor):
    """Extraction strength of one row, by its definition."""
    for k in range(len(row)):
        if all(row[k:]):
            return 1 - k / len(row)
    return floor


@settings(max_examples=200)
@given(HITS, st.booleans())
def test_extraction_strength_and_exact_memorisation(rows, fill):
    hits, labels = padded(rows, fill)
    np.testing.assert_allclose(
        metrics.extraction_strength(hits, labels), [strength(row, 0) for row in rows], atol=1e-12
    )
    floors = [strength(row, 1 / len(row) if row else 0) for row in rows]
    np.testing.assert_allclose(metrics.extraction_strength(hits, labels, compat=True), floors, atol=1e-12)
    np.testing.assert_allclose(
        metrics.exact_memorisation(hits, labels), [sum(row) / len(row) if row else math.nan for row in rows], atol=1e-12
    )


def test_rows_of_one_label():
    hits, labels = np.array([[True], [False]]), np.array([1, 1])
    assert (
        metrics.extraction_strength(hits, labels).tolist()
        == [1, 0]
        == metrics.exact_memorisation(hits, labels).tolist()
    )
    assert metrics.extraction_strength(hits, labels, compat=True).tolist() == [1, 1]


def test_privacy_leak():
    assert metrics.privacy_leak(0.38, 0.38) == 0
    assert metrics.privacy_leak(1.0, 0.38) == pytest.approx(-100)
    assert metrics.privacy_leak(0.2, 0.5) == pytest.approx(60)
    assert metrics.privacy_leak(0.9, 1.0) is None
