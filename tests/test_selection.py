"""Which sample is kept, and what is remembered of it."""

import numpy as np
import pytest
from scipy import stats

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.memory import Memory, keep_best, unsolved
from pmc_jax.methods.selection import select


def test_lowest_takes_the_first_of_equals():
    assert select(np.array([[0.5, 0.2, 0.2], [0.0, 0.0, 0.0], [1.0, 0.9, 0.1]])).tolist() == [1, 0, 2]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_bradley_terry_frequencies(temperature):
    scores = np.array([0.9, 0.5, 0.45, 0.4])
    count = 4000
    picks = select(np.tile(scores, (count, 1)), "bradley_terry", temperature, [[7, 0, q] for q in range(count)])
    wanted = np.exp((1 - scores) / temperature) / np.exp((1 - scores) / temperature).sum()
    counts = np.bincount(picks, minlength=4)
    common = wanted * count > 5
    assert stats.chisquare(counts[common], wanted[common] / wanted[common].sum() * counts[common].sum()).pvalue > 1e-3
    assert counts[~common].sum() <= 20


def test_bradley_terry_is_keyed_by_its_seeds_and_ends_in_the_lowest():
    scores_QS = np.random.default_rng(0).random((50, 6))
    seeds = [[3, 1, q] for q in range(50)]
    picks = select(scores_QS, "bradley_terry", 1.0, seeds)
    assert (select(scores_QS, "bradley_terry", 1.0, seeds) == picks).all()
    assert (select(scores_QS[20:30], "bradley_terry", 1.0, seeds[20:30]) == picks[20:30]).all()
    assert (select(scores_QS, "bradley_terry", 1.0, [[3, 2, q] for q in range(50)]) != picks).any()
    assert (select(scores_QS, "bradley_terry", 1e-6, seeds) == select(scores_QS)).all()


def test_what_select_refuses():
    with pytest.raises(UserError, match="highest"):
        select(np.zeros((1, 2)), "highest")
    for seeds in (None, [], [[1], [2]]):
        with pytest.raises(UserError, match="1 questions"):
            select(np.zeros((1, 2)), "bradley_terry", 1.0, seeds)


def remembered(*scores):
    return Memory(["ref"] * len(scores), [f"old {s}" for s in scores], list(scores), [5.0] * len(scores))


def test_keep_best_replaces_what_scores_no_better():
    old = remembered(None, 0.5, 0.5, 0.5, 0.2)
    new = keep_best(old, np.array([0, 1, 2, 3]), ["a", "b", "c", "d"], [0.9, 0.6, 0.5, 0.4], [1.0, 2.0, 3.0, 4.0])
    assert new.answers == ["a", "old 0.5", "c", "d", "old 0.2"] and new.scores == [0.9, 0.5, 0.5, 0.4, 0.2]
    assert new.lengths == [1.0, 2.0, 3.0, 4.0, 5.0] and new.references == old.references
    assert old.answers[0] == "old None" and old.scores[0] is None, "the old memory is left as it was"
    always = keep_best(old, np.array([1]), ["b"], [0.6], [2.0], always=True)
    assert always.answers[1] == "b" and always.scores[1] == 0.6


def test_solved_is_exactly_zero():
    memory = remembered(0.0, 1e-9, None, 0.0, 0.5)
    assert unsolved(memory, np.array([4, 3, 2, 1, 0]), skip_solved=True).tolist() == [4, 2, 1]
    assert unsolved(memory, np.array([4, 3, 0]), skip_solved=False).tolist() == [4, 3, 0]
    assert unsolved(memory, np.array([0, 3]), skip_solved=True).tolist() == []


def test_on_the_surface():
    assert pmc_jax.select(np.array([[0.5, 0.1]])).tolist() == [1]
