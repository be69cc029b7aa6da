import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pmc_jax.errors import UserError
from pmc_jax.sampling.draw import draw
from pmc_jax.sampling.params import GREEDY, SamplingStrategy

DRAWS = 20000
AT_ONCE = 2000


def warped(logits_V, temperature, k, p):
    """The exact distribution, float64 [V]: temperature, then top-k (equal logits by id), then top-p."""
    scaled = np.asarray(logits_V, np.float64) / temperature
    kept = np.argsort(-scaled, kind="stable")[: k or None]
    probs = np.exp(scaled[kept] - scaled[kept[0]])
    probs /= probs.sum()
    kept, probs = kept[np.cumsum(probs) - probs < p], probs[np.cumsum(probs) - probs < p]
    probs_V = np.zeros(len(scaled))
    probs_V[kept] = probs / probs.sum()
    return probs_V


def draws(logits_V, strategy, count=DRAWS, seed=0, at_once=AT_ONCE):
    """`count` independent draws from the same logits."""
    logits_BV = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (at_once, len(logits_V)))
    one = jax.jit(
        draw, static_argnames="strategy"
    )  # logits as an argument: XLA would sort a constant at compile time, for minutes
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [np.asarray(one(logits_BV, uniforms(rng, at_once), strategy)) for _ in range(-(-count // at_once))]
    )


def uniforms(rng, rows):
    return rng.random((rows, 2), np.float32)


def chi_square(drawn, probs):
    """p-value of the counts; tokens expected fewer than 8 times are one bin, and tokens of probability 0 must not be
    there at all.
    """
    counts = np.bincount(drawn, minlength=len(probs))
    assert counts[probs == 0].sum() == 0, "a token was drawn that the sampling cuts"
    expected = probs * len(drawn)
    rare = expected < 8
    observed, wanted = [*counts[~rare], counts[rare].sum()], [*expected[~rare], expected[rare].sum()]
    if wanted[-1] < 8:  # too few even together: they join the last of the others
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    return stats.chisquare(observed, wanted).pvalue if len(wanted) > 1 else 1.0


LOGITS = np.random.default_rng(0).normal(size=200) * 2


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
@pytest.mark.parametrize(
    "k, p", [(50, 0.95), (50, 1.0), (0, 0.9), (0, 1.0), (1000, 0.8), (1000, 1.0), (1, 0.5), (7, 0.3)]
)
def test_draws_follow_the_warped_distribution(temperature, k, p):
    assert chi_square(draws(LOGITS, SamplingStrategy(temperature, k, p)), warped(LOGITS, temperature, k, p)) > 1e-3


@pytest.mark.parametrize("other", [(1.1, 50, 0.95), (1.0, 20, 0.95), (1.0, 50, 0.8), (0.9, 50, 0.95)])
def test_the_chi_square_test_notices_another_distribution(other):
    drawn = draws(LOGITS, SamplingStrategy(1.0, 50, 0.95))
    try:
        assert chi_square(drawn, warped(LOGITS, *other)) < 1e-6
    except AssertionError as error:
        assert "the sampling cuts" in str(error)


@pytest.mark.parametrize(
    "vocabulary, k, p", [(50257, 50, 0.95), (50257, 0, 1.0), (50257, 0, 0.95), (128256, 50, 0.95), (128256, 0, 1.0)]
)
def test_draws_of_a_large_vocabulary(vocabulary, k, p):
    logits = np.random.default_rng(vocabulary).normal(size=vocabulary) - 3
    logits[np.random.default_rng(1).choice(vocabulary, 60, replace=False)] += np.linspace(6, 12, 60)
    drawn = draws(logits, SamplingStrategy(1.0, k, p), count=2048 if k else 256, at_once=64)
    assert chi_square(drawn, warped(logits, 1.0, k, p)) > 1e-3


@pytest.mark.parametrize("vocabulary, k", [(300, 40), (5003, 50), (32000, 300), (128256, 20)])
def test_top_k_is_exact_also_among_equal_logits(vocabulary, k):
    """Most logits are equal at the k-th place: those with the lowest ids are kept, as by a plain top-k."""
    rng = np.random.default_rng(k)
    logits = np.zeros(vocabulary)
    logits[rng.choice(vocabulary, k // 2, replace=False)] = 0.5
    logits[-k // 4 :] = 0.5
    kept = np.argsort(-logits, kind="stable")[:k]
    drawn = draws(logits, SamplingStrategy(5.0, k, 1.0), count=15 * k, at_once=min(400, 2**23 // vocabulary))
    assert set(drawn.tolist()) <= set(kept.tolist())
    assert len(set(drawn.tolist())) == k


def test_masked_logits_and_a_single_candidate():
    logits = np.full(1000, -np.inf)
    logits[[3, 700]] = [1.0, 2.0]
    for strategy in (
        SamplingStrategy(1.0, 50, 1.0),
        SamplingStrategy(1.0, 0, 1.0),
        SamplingStrategy(1.0, 50, 0.95),
        SamplingStrategy(1.0, 0, 0.99),
    ):
        assert set(draws(logits, strategy, 2000).tolist()) == {3, 700}, strategy
    assert set(draws(LOGITS, SamplingStrategy(1.0, 50, 1e-6), 2000).tolist()) == {int(np.argmax(LOGITS))}, (
        "top-p keeps at least the likeliest"
    )


def test_a_low_temperature_and_half_precision_logits():
    assert set(draws(LOGITS, SamplingStrategy(1e-4, 50, 1.0), 2000).tolist()) == {int(np.argmax(LOGITS))}
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    drawn = draws(half, SamplingStrategy(1.0, 50, 0.95))
    assert chi_square(drawn, warped(np.asarray(half, np.float64), 1.0, 50, 0.95)) > 1e-3


def test_greedy_is_the_first_of_the_largest_and_needs_no_randomness():
    logits = jnp.asarray([[0.0, 3.0, 3.0, 1.0], [5.0, 1.0, 2.0, 5.0]])
    for seed in range(3):
        drawn = draw(logits, uniforms(np.random.default_rng(seed), 2), GREEDY)
        assert drawn.tolist() == [1, 0] and drawn.dtype == jnp.int32


def test_each_row_has_its_own_numbers_and_the_same_numbers_give_the_same_draw():
    logits = jnp.zeros((512, 100))
    some, others = (uniforms(np.random.default_rng(seed), 512) for seed in (0, 1))
    strategy = SamplingStrategy(1.0, 0, 1.0)
    first, again, other = (draw(logits, numbers, strategy) for numbers in (some, some, others))
    assert (first == again).all() and len(set(first.tolist())) > 50
    assert np.mean(np.asarray(first) == np.asarray(other)) < 0.1
    alone = draw(logits[:1], some[7:8], strategy)
    assert alone[0] == first[7]


@pytest.mark.parametrize("strategy", [SamplingStrategy(1.0, 20, 1.0), SamplingStrategy(1.0, 0, 1.0)])
def test_rounding_that_turns_the_order_of_near_ties_changes_no_draw(strategy):
    """Pairs of all but equal logits, whose ranks change places: what is drawn stays, as tokens are told apart by their
    ids.
    """
    logits = np.repeat(np.linspace(0, 2, 20), 2).astype(np.float32)
    nudge = np.tile([1e-6, -1e-6], 20).astype(np.float32)
    one, other = (draws(logits + sign * nudge, strategy, 4000) for sign in (1, -1))
    assert np.mean(one == other) > 0.999 and len(set(one.tolist())) > 10


@pytest.mark.parametrize(
    "bad, name",
    [
        (dict(temperature=-1.0), "sample.temperature"),
        (dict(temperature=float("nan")), "sample.temperature"),
        (dict(top_p=0.0), "sample.top_p"),
        (dict(top_p=1.1), "sample.top_p"),
        (dict(top_k=-1), "sample.top_k"),
    ],
)
def test_a_warp_out_of_bounds_is_refused_by_name(bad, name):
    with pytest.raises(UserError, match=name):
        SamplingStrategy(**bad)
