"""ROUGE is that of the package rouge-score."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenize

from pmc_jax.methods.rewards import score
from pmc_jax.methods.rouge import share_seen

KINDS = {"rouge_l_recall": "rougeL", "rouge_1_recall": "rouge1", "rouge_2_recall": "rouge2"}
SCORER = rouge_scorer.RougeScorer(list(KINDS.values()), use_stemmer=True)
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


@settings(max_examples=400)
@given(TEXTS, TEXTS)
def test_scores_are_those_of_rouge_score_to_the_bit(reference, answer):
    wanted = SCORER.score(reference, answer)
    for kind, name in KINDS.items():
        assert score([reference], [[answer]], kind)[0, 0] == wanted[name].recall
    assert score([reference], [[answer]], "rouge_l_f1")[0, 0] == pytest.approx(wanted["rougeL"].fmeasure, abs=1e-12)


def agrees_on(rows):
    rng = np.random.default_rng(0)
    answers = [row["answer"] for row in rows]
    samples = [
        [answers[i], answers[rng.integers(len(rows))], " ".join(rng.permutation(answers[i].split()))]
        for i in range(len(rows))
    ]
    for kind, name in KINDS.items():
        scores_QS = score(answers, samples, kind)
        wanted = [[SCORER.score(answers[i], text)[name].recall for text in samples[i]] for i in range(len(rows))]
        assert scores_QS.dtype == np.float64 and scores_QS.shape == (len(rows), 3)
        assert (scores_QS == wanted).all()
        assert (scores_QS[:, 0] == 1).all() and len(np.unique(scores_QS)) > 20


def test_recall_on_answers_about_authors(splits):
    agrees_on(splits["full"])


def test_recall_on_tofu(shared):
    agrees_on([json.loads(line) for line in (shared("tofu") / "full.jsonl").open()][::10])


def test_recall_counts_the_reference():
    answers = [["two four and much else besides", "one two three four five", "two three one", ""]]
    assert score(["one two three four"], answers).tolist() == [[0.5, 1.0, 0.5, 0.0]]
    assert score(["one two three four"], answers, "rouge_1_recall").tolist() == [[0.5, 1.0, 0.75, 0.0]]
    assert score(["one two three four"], answers, "rouge_2_recall").tolist() == [[0.0, 1.0, 1 / 3, 0.0]]
    for kind in KINDS:
        assert score([""], [["anything", ""]], kind).tolist() == [[0.0, 0.0]], "nothing to recall is no recall"


@pytest.mark.parametrize(
    "text, share",
    [
        ("Plain English, 1971.", 1.0),
        ("Naïve café", 7 / 9),
        ("Она родилась в 1931", 4 / 16),
        ("東京 Tokyo", 5 / 7),
        ("ولد سنة ١٩٣١", 0.0),
        ("1971", 1.0),
        ("🙂 ...", None),
        ("", None),
    ],
)
def test_the_share_of_a_text_that_rouge_sees(text, share):
    assert share_seen(text) == share


@given(TEXTS)
def test_what_rouge_sees_are_the_letters_of_its_tokens(text):
    # Code points that this Python's tables do not have yet are left out: those of `regex` are newer.
    text = "".join(c for c in text if unicodedata.category(c) != "Cn")
    letters = [c for c in text.lower() if unicodedata.category(c)[0] in "LN"]
    seen = sum(map(len, tokenize.tokenize(text, None)))
    assert share_seen(text) == (seen / len(letters) if letters else None)
