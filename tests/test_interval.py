"""Intervals against scipy's bootstrap, and those of unlearn quality and utility."""

import math

import numpy as np
import pytest
from scipy import stats

from pmc_jax.evaluate import quality
from pmc_jax.evaluate.interval import draws, mean_with_interval, resampled_means


def test_interval_is_the_bootstrap_of_the_mean():
    values = np.random.default_rng(3).beta(0.5, 0.5, 300)
    interval = mean_with_interval(values, resamples=4000)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    error = values.std() / math.sqrt(300)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12) and interval.rows == 300
    assert interval.low == pytest.approx(wanted.low, abs=error / 4) and interval.high == pytest.approx(
        wanted.high, abs=error / 4
    )
    assert 3.5 * error < interval.high - interval.low < 4.4 * error
    narrow = mean_with_interval(values, resamples=4000, level=0.5)
    assert interval.low < narrow.low < interval.mean < narrow.high < interval.high


def test_interval_is_that_of_its_seed():
    values = np.random.default_rng(0).normal(size=50)
    assert (
        mean_with_interval(values, seed=1) == mean_with_interval(values, seed=1) != mean_with_interval(values, seed=2)
    )


def test_interval_of_few_rows():
    assert mean_with_interval([]) == (None, None, None, 0) == mean_with_interval([math.nan])
    assert mean_with_interval([0.25, math.nan]) == (0.25, None, None, 1)
    assert mean_with_interval([0.25] * 7) == (0.25, 0.25, 0.25, 7)
    assert mean_with_interval([[0.0, 1.0], [math.nan, 1.0]]).rows == 3


def test_columns_of_the_same_rows_are_drawn_together_and_sets_apart():
    column = np.arange(30.0)
    assert (resampled_means(column) * 2 == resampled_means(2 * column)).all()
    assert abs(np.corrcoef(resampled_means(column, 1), resampled_means(column, 2))[0, 1]) < 0.15
    assert draws(7).shape == (1000, 7) and draws(7).max() == 6 and draws(7).min() == 0


def drawn(seed=0, **rows):
    """Recalls by set."""
    rng = np.random.default_rng(seed)
    return {name: rng.beta(0.4, 0.6, count) for name, count in rows.items()}


def test_quality_and_utility_with_their_intervals():
    recalls = drawn(forget=40, forget_paraphrased=40, retain=200, world_facts=60, real_authors=50)
    summary = quality.summarise(recalls)
    assert summary["unlearn_quality"] == pytest.approx(
        50 * (2 - recalls["forget"].mean() - recalls["forget_paraphrased"].mean())
    )
    assert (
        summary["utility"] == pytest.approx(100 / 3 * sum(recalls[name].mean() for name in quality.KEEP))
        and summary["rows"]["retain"] == 200
    )
    wanted = stats.bootstrap(
        (*(recalls[name] for name in quality.KEEP),),
        lambda *x, axis: 100 / 3 * sum(np.mean(v, axis=axis) for v in x),
        rng=1,
    )
    low, high = summary["intervals"]["utility"]
    width = high - low
    assert low == pytest.approx(wanted.confidence_interval.low, abs=width / 8)
    assert high == pytest.approx(wanted.confidence_interval.high, abs=width / 8)
    assert summary["intervals"]["forget"] == mean_with_interval(recalls["forget"])[1:3]


def test_a_paraphrase_is_drawn_with_its_question():
    """The same recall asked twice says no more than once; an opposite one says all."""
    one = drawn(forget=50)["forget"]
    alone = quality.summarise({"forget": one})
    twice = quality.summarise({"forget": one, "forget_paraphrased": one})
    assert twice["intervals"]["unlearn_quality"] == pytest.approx(alone["intervals"]["unlearn_quality"])
    opposite = quality.summarise({"forget": one, "forget_paraphrased": 1 - one})
    assert opposite["unlearn_quality"] == pytest.approx(50) and np.ptp(opposite["intervals"]["unlearn_quality"]) < 1e-9


def test_quality_of_the_sets_there_are():
    summary = quality.summarise({"forget": [0.25]})
    assert summary["unlearn_quality"] == 75 and summary["utility"] is None and summary["retain"] is None
    assert summary["intervals"]["forget"] is None is summary["intervals"]["utility"]
    assert quality.summarise({"forget": [1.0, 0.0], "world_facts": [0.5]})["utility"] == 50


def test_a_start_imports_no_statistics(python):
    code = "import sys\nfrom pmc_jax.runs import unlearn\nsys.exit('scipy' in sys.modules or 'sklearn' in sys.modules)"
    assert python(code).returncode == 0, (
        "they take longer to import than all else that a run needs before its first step"
    )
