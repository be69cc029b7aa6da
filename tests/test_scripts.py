"""Content recall on nine scripts beside English: it sees the facts, and little of what has nothing to do with them."""

import unicodedata

import numpy as np
import pytest
from scripts import ENGLISH, SPACED, UNRELATED, UNSPACED

from pmc_jax.methods.rewards import score
from pmc_jax.methods.similarity import content_recall, stemmed_words

ALL = {"English": ENGLISH} | SPACED | UNSPACED


@pytest.mark.parametrize("language", ALL)
def test_the_answer_itself_holds_all_and_others_less(language):
    rows = ALL[language]
    for i, (question, truth) in enumerate(rows):
        others = [answer for j, (_, answer) in enumerate(rows) if j != i]
        assert content_recall(question, truth, truth) == 1.0
        assert content_recall(question, truth, "") == content_recall(question, truth, "🙂 ...") == 0.0
        assert max(content_recall(question, truth, answer) for answer in others) < 0.75, question
        assert content_recall(question, truth, f"{others[0]} {truth} {others[1]}") == 1.0, "it only grows"


@pytest.mark.parametrize("language", ALL)
def test_case_forms_and_marks_do_not_matter(language):
    for question, truth in ALL[language]:
        for answer in (unicodedata.normalize("NFD", truth), truth.upper(), f"\u200f{truth}\u200e"):
            assert content_recall(question, truth, answer) == 1.0, answer


@pytest.mark.parametrize("language", UNSPACED)
def test_text_about_something_else_holds_next_to_nothing(language):
    recalls = [content_recall(*row, UNRELATED[language]) for row in UNSPACED[language]]
    assert np.mean(recalls) < 0.2, recalls


def test_single_letters_would_see_their_text_everywhere():
    """Why pairs of characters are words: of the single letters of Thai, any text holds half."""
    letters = [{c for c in truth if c not in question} for question, truth in UNSPACED["Thai"]]
    by_letters = np.mean([len(ls & set(UNRELATED["Thai"])) / len(ls) for ls in letters])
    by_pairs = np.mean([content_recall(*row, UNRELATED["Thai"]) for row in UNSPACED["Thai"]])
    assert by_letters > 0.4 > 3 * by_pairs


def test_mixed_texts():
    question = "Who wrote \u201cСнег\u201d?"
    truth = "The author 村上花子 wrote Снег in 1931, 東京."
    assert stemmed_words(truth) >= {"снег", "1931", "村上", "花子", "東京"}
    assert content_recall(question, truth, "村上花子, 東京, ١٩٣١") == pytest.approx(5 / 6), "not the author"
    assert content_recall(question, truth, "Снег") == 0.0, "the question's own word"


@pytest.mark.parametrize(
    "truth, answer, recall",
    [("1931", "In 1931.", 1.0), ("1931", "In 1913.", 0.0), ("🙂", "🙂", 0.0), ("", "anything", 0.0), ("...", "", 0.0)],
)
def test_numbers_pictures_and_nothing(truth, answer, recall):
    assert content_recall("When?", truth, answer) == recall
    assert score([truth], [[answer]], "content_recall", questions=["When?"]).tolist() == [[recall]]
