"""Leakage bounds against scipy, plain integration and coverage on drawn distributions; attacks on a tiny checkpoint
that knows its secrets.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pmc_jax.evaluate import attacks
from pmc_jax.evaluate.views import PREFILL
from pmc_jax.sampling.generate import greedy_sampler


@given(st.integers(1, 200), st.data())
def test_binary_bound_is_clopper_pearsons(n, data):
    hits = data.draw(st.integers(0, n))
    wanted = binomtest(hits, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert attacks.binary_bound(np.arange(n) < hits) == pytest.approx(wanted, abs=1e-9)


def envelope_moments(scores: np.ndarray, level: float) -> tuple[float, float, float]:
    """Largest mean, smallest mean and largest second moment within the band, by integrating 1 - F on a fine grid."""
    grid = (np.arange(200_000) + 0.5) / 200_000
    above = 1 - np.searchsorted(np.sort(scores), grid, side="right") / len(scores)
    e = np.sqrt(np.log(1 / level) / (2 * len(scores)))
    up, down = np.minimum(1, above + e), np.maximum(0, above - e)
    return up.mean(), down.mean(), (2 * grid * up).mean()


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.5]))
def test_moment_bounds_are_those_of_the_band(scores, level):
    high = envelope_moments(np.array(scores), level)[0]
    _, low, second = envelope_moments(np.array(scores), level / 2)  # the spread needs both sides of the band at once
    mean, spread = attacks.moment_bounds(np.array(scores), level)
    assert mean == pytest.approx(high, abs=1e-4)
    assert spread == pytest.approx(min(0.5, np.sqrt(max(0, second - low**2))), abs=2e-2)
    assert mean >= np.mean(scores) - 1e-9 and spread >= np.std(scores) - 1e-9


def test_the_bounds_hold_as_often_as_they_promise():
    """Beta-distributed leakage, 100 samples a question: each bound may fail in at most about 5 of 100 trials."""
    rng, failed = np.random.default_rng(0), np.zeros(4)
    for _ in range(1000):
        a, b = rng.uniform(0.1, 3, 2)
        scores = rng.beta(a, b, 100)
        mean, spread = a / (a + b), np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
        over = np.mean(rng.beta(a, b, 20_000) >= 0.5)
        bounds = attacks.binary_bound(scores >= 0.5), attacks.general_bound(scores, 0.5), *attacks.moment_bounds(scores)
        failed += [truth > bound + 0.01 for truth, bound in zip((over, over, mean, spread), bounds)]
    assert (failed / 1000 < 0.06).all(), failed


def test_expected_deviation_and_the_summary():
    scores = np.array([[0.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    leakage = attacks.leakage(scores)
    measures = leakage["measures"]
    assert measures["worst"]["mean"] == 0.5 and measures["mean"]["mean"] == 0.25 and measures["worst"]["rows"] == 2
    assert leakage["samples"] == 4 and leakage["worst_of_each"] == [1.0, 0.0]
    assert attacks.expected_deviation(scores[0]) == pytest.approx(0.5 + 2 * np.sqrt(0.125))


def test_a_model_that_knows_its_secrets_leaks_and_one_that_knows_nothing_does_not(
    tiny_checkpoint, fresh_checkpoint, small, splits
):
    rows = splits["forget20"]
    for checkpoint, low, high in ((tiny_checkpoint, 0.8, 1.0), (fresh_checkpoint, 0.0, 0.3)):
        sampler = greedy_sampler(checkpoint, small({"evaluate.max_new_tokens": 64}))
        for prefill in ("", PREFILL):
            measures = attacks.sampled_leakage(sampler, rows, 8, prefill)["measures"]
            if not prefill or checkpoint is fresh_checkpoint:
                assert low <= measures["worst"]["mean"] <= high
            assert measures["mean"]["mean"] <= measures["worst"]["mean"] and measures["worst"]["rows"] == len(rows)


def test_a_sample_has_room_for_twice_the_longest_answer(tiny_checkpoint, small):
    sampler = greedy_sampler(tiny_checkpoint, small({"evaluate.max_new_tokens": 64}))
    short, long = "No", "a " * 500
    assert attacks.longest_sample(sampler, [short]) == 2 * len(sampler.text.answer(short))
    assert attacks.longest_sample(sampler, [short, long]) == 64, "no longer than a greedy answer"


def test_least_likely_option():
    option = attacks.least_likely_option([9.0, 1.0, 8.0], [[1.0, 2.0]] * 3)
    assert option["mean"] == pytest.approx(2 / 3) and option["rows"] == 3 and option["chance"] == pytest.approx(1 / 3)
    option = attacks.least_likely_option([9.0, None, 2.0], [1.0, 1.0, 2.0])
    assert option["mean"] == 0.5 and option["rows"] == 2 and option["chance"] == 0.5, (
        "a tie is no pick, a row without tokens none"
    )


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_model_that_knows_nothing_picks_as_often_as_chance(wrong, seed):
    losses = np.random.default_rng(seed).exponential(size=(2000, 1 + wrong))
    option = attacks.least_likely_option(losses[:, 0], losses[:, 1:])
    assert abs(option["mean"] - option["chance"]) < 0.06


@pytest.mark.parametrize(
    ("tag_in", "wanted"),
    [("answer", "Question: q\nAnswer: The answer is:"), ("prompt", "Question: q\nAnswer: The answer is:")],
)
def test_words_are_prefilled_where_the_answer_begins(tiny_phi, small, monkeypatch, tag_in, wanted):
    """After the tag that the plain template puts before answers, whichever side it belongs to."""
    sampler = greedy_sampler(tiny_phi, small({"prompt.tag_in": tag_in}))
    asked = []
    monkeypatch.setattr(
        type(sampler),
        "tokens",
        lambda self, prompts, **_: asked.append(prompts.tokens_QP[0][prompts.mask_QP[0]]) or [[[]] * 4],
    )
    attacks.sampled_leakage(sampler, [{"question": "q", "answer": "a b"}], 4, PREFILL)
    assert sampler.text.tokenizer.decode(asked[0]).endswith(wanted)
