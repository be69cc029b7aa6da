"""Drift of words in unrelated text, and neighbouring knowledge: drawn cases against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from pmc_jax.evaluate import drift, neighbours

WORDS = ["the", "novel", "Izmir", "born", "of", "1956", "東京", "ژاله", "writer’s"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


def test_words_of_any_script_without_case_and_marks():
    assert [w for w, *_ in drift.words_of("The author's NOVEL, of 1956: Straße_1 東京で ژاله!")] == [
        "the", "author", "s", "novel", "of", "1956", "strasse", "1", "東京で", "ژاله",
    ]  # fmt: skip
    assert drift.words_of("") == [] == drift.words_of("… – !")
    assert drift.forget_words(["The author's novel", "He was born in Izmir"]) == {"author", "novel", "born", "izmir"}


@given(st.lists(st.text("ab ,é東", min_size=1, max_size=4), max_size=8), st.integers(0, 2**32 - 1))
def test_a_words_probability_is_the_product_of_its_tokens(tokens, seed):
    """Tokens cut the text anywhere: within words, across spaces."""
    text, log_probs = "".join(tokens), -np.random.default_rng(seed).exponential(size=len(tokens))
    ends = np.cumsum([len(t) for t in tokens], dtype=int)
    spans = [(int(end) - len(t), int(end)) for t, end in zip(tokens, ends)]
    words = drift.word_probabilities(text, spans, log_probs)
    assert [w for w, _ in words] == [w for w, *_ in drift.words_of(text)]
    for (_, start, end), (_, probability) in zip(drift.words_of(text), words):
        held = {i for i, (a, b) in enumerate(spans) for position in range(a, b) if start <= position < end}
        assert probability == pytest.approx(math.prod(math.exp(log_probs[i]) for i in held), rel=1e-9)


@settings(max_examples=40)
@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=3), st.integers(0, 2**32 - 1))
def test_drift_is_the_mean_change_of_either_kind_of_word(texts, secrets, seed):
    rng = np.random.default_rng(seed)
    before, after = ([[(w, rng.random()) for w, *_ in drift.words_of(text)] for text in texts] for _ in range(2))
    changes_by_kind = drift.drift(before, after, drift.forget_words(secrets))
    secret, skipped = {w for text in secrets for w, *_ in drift.words_of(text)}, drift.function_words()
    for kind, belongs in (("forget_words", lambda w: w in secret), ("other_words", lambda w: w not in secret)):
        changes = [
            [a - b for (w, b), (_, a) in zip(*pair) if w not in skipped and belongs(w)] for pair in zip(before, after)
        ]
        flat, entry = [c for row in changes for c in row], changes_by_kind[kind]
        assert entry["words"] == len(flat) and entry["rows"] == sum(map(bool, changes))
        if flat:
            assert entry["mean"] == pytest.approx(np.mean(flat)) and entry["std"] == pytest.approx(np.std(flat))
        else:
            assert entry["mean"] is None is entry["low"]
        assert (entry["low"] is not None) == (entry["rows"] > 1)


def test_the_interval_of_drift_is_over_texts():
    """Ten words that change as one say no more than one word: the interval is as wide."""
    changes = np.random.default_rng(0).normal(size=40)
    once, ten = drift.change(changes, np.arange(40)), drift.change(np.repeat(changes, 10), np.repeat(np.arange(40), 10))
    assert (ten["low"], ten["high"]) == pytest.approx((once["low"], once["high"]))
    assert once["high"] - once["low"] == pytest.approx(2 * 1.96 * changes.std() / math.sqrt(40), rel=0.15)


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(TEXTS, min_size=1, max_size=6))
def test_nearness_is_the_largest_cosine(forget, retain):
    cosines_N = neighbours.nearness(forget, retain)
    assert cosines_N.shape == (len(retain),) and (cosines_N >= 0).all() and (cosines_N <= 1 + 1e-9).all()
    if any([*forget, *retain]):
        vectors = TfidfVectorizer(token_pattern=r"[^\W_]+").fit_transform([*forget, *retain])
        np.testing.assert_allclose(
            cosines_N, cosine_similarity(vectors[len(forget) :], vectors[: len(forget)]).max(axis=1), atol=1e-9
        )


def test_questions_without_words_are_far_and_the_same_question_is_near():
    assert neighbours.nearness(["?"], ["!", ""]).tolist() == [0, 0]
    assert neighbours.nearness(["誰？ 東京"], ["東京 誰", "who"]) == pytest.approx([1, 0])


def test_near_and_far_quarters():
    asked = ["Where was the writer born?"] * 3 + ["What does the baker bake?"] * 9
    recall = [0.2] * 3 + [1.0] * 9
    result = neighbours.neighbours(["Where was this writer born?", "Who?"], asked, recall, [1.0] * 12)
    assert result["recall"]["near"]["mean"] == pytest.approx(0.2) and result["recall"]["far"] == {
        "mean": 1,
        "low": 1,
        "high": 1,
        "rows": 3,
    }
    assert result["recall"]["difference"]["mean"] == pytest.approx(-0.8) and result["recall"]["difference"]["rows"] == 6
    assert result["change"]["near"]["mean"] == pytest.approx(-0.8) and result["change"]["difference"][
        "mean"
    ] == pytest.approx(-0.8)
    assert result["nearness"]["near"] > 0.5 > result["nearness"]["far"]
    assert "change" not in neighbours.neighbours(["Who?"], asked, recall)
    assert neighbours.neighbours(["Who?"], asked[:7], recall[:7]) == {"reason": "needs 8 retain rows, there are 7"}
    near, far = neighbours.quarters(np.zeros(9))
    assert near.tolist() == [0, 1] and far.tolist() == [7, 8], "equally near rows stay in order, no row is in both"


def test_the_difference_has_the_interval_of_two_separate_samples():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 200), rng.normal(0.5, 2, 200)])
    difference = neighbours.compare(values, np.arange(200), np.arange(200, 400))["difference"]
    assert difference["high"] - difference["low"] == pytest.approx(2 * 1.96 * math.sqrt(1 / 200 + 4 / 200), rel=0.15)
