"""Rewards: the table, the user's own, and what a score may be."""

import math

import pytest

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.rewards import score
from pmc_jax.methods.selection import select


@pytest.mark.parametrize(
    "answer, words",
    [("", 0), ("one", 1), ("one two", 2), ("one two three", 3), ("  one   two ", 2), ("one, two-three", 2)],
)
@pytest.mark.parametrize("min_words", [0, 1, 3, 10])
def test_short_answers_are_penalised(answer, words, min_words):
    plain, guarded = (score(["one x y z"], [[answer]], min_words=m)[0, 0] for m in (0, min_words))
    assert guarded == (min(1.0, plain + math.exp(-words)) if words < min_words else plain)


def test_saying_nothing_is_no_way_out():
    scores_QS = score(["a b c d"], [["", "quite another thing entirely", "a b"]], min_words=3)
    assert select(scores_QS).tolist() == [1] and scores_QS[0, 0] == 1.0


def test_what_score_refuses():
    with pytest.raises(UserError, match="bleu"):
        score(["a"], [["a"]], "bleu")
    with pytest.raises(UserError, match="2 references but 1"):
        score(["a", "b"], [["a"]])
    with pytest.raises(UserError, match="1 references but 2 questions"):
        score(["a"], [["a"]], questions=["a", "b"])
    with pytest.raises(UserError, match="same number"):
        score(["a", "b"], [["a"], ["a", "b"]])
    with pytest.raises(UserError, match="tokenizer="):
        score(["a"], [["a"]], "longest_common_run")


def test_on_the_surface():
    assert pmc_jax.score(["one two"], [["two"]]).tolist() == [[0.5]]
