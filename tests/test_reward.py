import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from scipy import stats

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.memory import Memory, keep_best, unsolved
from pmc_jax.methods.rewards import score, select

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
ODD = [
    "",
    " ",
    "...",
    "?!",
    "Ünïcödé naïve café",
    "東京 は 首都",
    "don't stop",
    "a b a b a",
    "running runs ran",
    "3.14, 1,000",
    "A\u2028B",
    "İstanbul",
    "🙂 yes",
]
WORDS = st.sampled_from(
    (
        "the The author authors writing writes written born in on 1971 , . Konya naïve a b running "
        "hyphen-ated don't 24/05/1971"
    ).split()
)
TEXTS = st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=40) | st.sampled_from(ODD)


@how(deadline=None, max_examples=400)
@given(TEXTS, TEXTS)
def test_recall_is_that_of_rouge_score_to_the_bit(reference, answer):
    wanted = SCORER.score(reference, answer)["rougeL"]
    assert score([reference], [[answer]])[0, 0] == wanted.recall
    assert score([reference], [[answer]], "rouge_l_f1")[0, 0] == pytest.approx(wanted.fmeasure, abs=1e-12)


def agrees_on(rows):
    rng = np.random.default_rng(0)
    answers = [row["answer"] for row in rows]
    samples = [
        [answers[i], answers[rng.integers(len(rows))], " ".join(rng.permutation(answers[i].split()))]
        for i in range(len(rows))
    ]
    found = score(answers, samples)
    wanted = [[SCORER.score(answers[i], text)["rougeL"].recall for text in samples[i]] for i in range(len(rows))]
    assert found.dtype == np.float64 and found.shape == (len(rows), 3)
    assert (found == wanted).all()
    assert (found[:, 0] == 1).all() and len(np.unique(found)) > 20


def test_recall_on_answers_about_authors(splits):
    agrees_on(splits["full"])


def test_recall_on_tofu(shared):
    agrees_on([json.loads(line) for line in (shared("tofu") / "full.jsonl").open()][::10])


def test_recall_counts_the_reference():
    assert score(
        ["one two three four"], [["two four and much else besides", "one two three four five", ""]]
    ).tolist() == [[0.5, 1.0, 0.0]]
    assert score([""], [["anything", ""]]).tolist() == [[0.0, 0.0]], "as rouge-score: nothing to recall is no recall"


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
    with pytest.raises(UserError, match="same number"):
        score(["a", "b"], [["a"], ["a", "b"]])
    with pytest.raises(UserError, match="highest"):
        select(np.zeros((1, 2)), "highest")
    for seeds in (None, [], [[1], [2]]):
        with pytest.raises(UserError, match="1 questions"):
            select(np.zeros((1, 2)), "bradley_terry", 1.0, seeds)


def test_lowest_takes_the_first_of_equals():
    assert select(np.array([[0.5, 0.2, 0.2], [0.0, 0.0, 0.0], [1.0, 0.9, 0.1]])).tolist() == [1, 0, 2]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_bradley_terry_frequencies(temperature):
    scores = np.array([0.9, 0.5, 0.45, 0.4])
    count = 4000
    picks = select(np.tile(scores, (count, 1)), "bradley_terry", temperature, [[7, 0, q] for q in range(count)])
    wanted = np.exp((1 - scores) / temperature) / np.exp((1 - scores) / temperature).sum()
    seen = np.bincount(picks, minlength=4)
    common = wanted * count > 5
    assert stats.chisquare(seen[common], wanted[common] / wanted[common].sum() * seen[common].sum()).pvalue > 1e-3
    assert seen[~common].sum() <= 20


def test_bradley_terry_is_keyed_by_its_seeds_and_ends_in_the_lowest():
    scores_QS = np.random.default_rng(0).random((50, 6))
    seeds = [[3, 1, q] for q in range(50)]
    picks = select(scores_QS, "bradley_terry", 1.0, seeds)
    assert (select(scores_QS, "bradley_terry", 1.0, seeds) == picks).all()
    assert (select(scores_QS[20:30], "bradley_terry", 1.0, seeds[20:30]) == picks[20:30]).all()
    assert (select(scores_QS, "bradley_terry", 1.0, [[3, 2, q] for q in range(50)]) != picks).any()
    assert (select(scores_QS, "bradley_terry", 1e-6, seeds) == select(scores_QS)).all()


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
    assert pmc_jax.score(["one two"], [["two"]]).tolist() == [[0.5]]
    assert pmc_jax.select(np.array([[0.5, 0.1]])).tolist() == [1]
