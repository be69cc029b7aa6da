"""Content recall, chrF and the longest common run against plain implementations."""

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem import porter
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pmc_jax.methods.rewards import score
from pmc_jax.methods.similarity import (
    chrf,
    content_recall,
    content_words,
    longest_common_run,
    stemmed_words,
    stop_stems,
    words_to_lose,
)

STEM = porter.PorterStemmer().stem
WORDS = st.sampled_from("the is author Authors write writing novels novel Konya 1971 in Konya's yes".split())
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)


def plain_content_recall(question, truth, answer):
    """As described, for English: stems of the truth that are neither the question's nor a stop word's."""
    asked, told, given_ = ([STEM(w) for w in re.findall("[a-z0-9]+", t.lower())] for t in (question, truth, answer))
    stops = [STEM(w) for w in ENGLISH_STOP_WORDS]
    content = [w for w in told if w not in asked and w not in stops]
    content = content or [w for w in told if w not in asked] or told
    return np.mean([w in given_ for w in set(content)]) if content else 0.0


@given(SENTENCES, SENTENCES, SENTENCES)
def test_content_recall_is_that_of_a_plain_implementation(question, truth, answer):
    wanted = plain_content_recall(question, truth, answer)
    assert content_recall(question, truth, answer) == pytest.approx(wanted, abs=1e-12)
    assert score([truth], [[answer]], "content_recall", questions=[question])[0, 0] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("model, wanted", [("full_evals_forget10", 0.758), ("retain90", 0.147)])
def test_content_recall_of_the_official_models(shared, model, wanted):
    """The one that was trained on the answers, and the one that never saw them."""
    log = json.loads((shared("oracle") / f"tofu_Llama-3.2-1B-Instruct_{model}.json").read_text())
    recalls = []
    for row in log["forget_Q_A_ROUGE"]["value_by_index"].values():
        question = row["input"].split("user\n\n")[1].rsplit("assistant\n\n")[0]
        texts = (question, row["ground_truth"], row["generation"])
        recalls.append(content_recall(*texts))
        assert recalls[-1] == pytest.approx(
            plain_content_recall(*texts), abs=0.51 if not "".join(texts).isascii() else 0
        )
    assert len(recalls) == 400 and round(float(np.mean(recalls)), 3) == wanted


def test_stop_words_are_scikit_learns():
    assert stop_stems() == {STEM(word) for word in ENGLISH_STOP_WORDS}


def test_what_carries_a_content():
    question = "Where was the author Konya Yıldız born?"
    assert content_words(question, "The author Konya Yıldız was born in Ankara, Turkey.") == {"ankara", "turkey"}
    assert content_words("Is she an author?", "Yes, she is an author.") == {STEM("yes")}
    assert content_words("Is it so?", "It is so.") == content_words("Was it?", "It was not.") == set()
    assert words_to_lose("Is it so?", "It is so.") == {"it", "is", "so"}, "or a reward had nothing to count"
    assert words_to_lose("Was it?", "It was not.") == {"not"}
    assert words_to_lose(question, "Born in Ankara.") == {"ankara"}
    assert content_recall(question, "...", "anything") == 0.0 == content_recall(question, "", "")


@pytest.mark.parametrize(
    "text, words",
    [
        ("Она родилась в Москве.", {"она", "родилась", "в", "москве"}),
        ("हिन्दी में लिखा", {"हिन्दी", "में", "लिखा"}),
        ("東京は日本", {"東京", "京は", "は日", "日本"}),
        ("コーヒー 本", {"コー", "ーヒ", "ヒー", "本"}),
        ("ที่นี่", {"ที่นี่"}),
        ("1931年 ๒๕๓๑ ١٩٣١", {"1931", "年", "2531"}),
        ("İstanbul ЯR2-D2", {unicodedata.normalize("NFKC", "i̇stanbul"), "яr2", "d2"}),
        ("cafe\u0301 naïve", {"café", "naïve"}),
        ("writes novels", {"write", "novel"}),
        ("Straße STRASSE ΣΊΣΥΦΟΣ", {STEM("strasse"), "σίσυφοσ"}),
        ("co\u00adoperate می\u200cخواهم", {"cooper", "میخواهم"}),
        ("ﬁnal Ｔｏｋｙｏ", {"final", STEM("tokyo")}),
        ("🙂 ... _", set()),
    ],
)
def test_words_of_every_script(text, words):
    assert stemmed_words(text) == words


def test_chrf_is_that_of_sacrebleu():
    """The numbers are those of sacrebleu 2.6.0, CHRF(eps_smoothing=True)."""
    for reference, answer, wanted in [
        ("The author's full name is Hsiao Yun-Hwa.", "Her name is Hsiao Yun-Hwa, a writer.", 0.5284459353391103),
        ("born in Taipei", "He was born in Paris, France", 0.31884846242531806),
        ("Она родилась в Москве.", "Он родился в Москве и вырос там.", 0.4256210677347921),
        ("东京是日本的首都。", "日本的首都是东京。", 0.4311507936507937),
    ]:
        assert chrf(reference, answer) == pytest.approx(wanted, abs=1e-12)
    assert chrf("Yes", "Yes") == chrf("a b", "ab ") == 1.0
    assert chrf("Yes", "No") == chrf("", "") == chrf("a b", " ") == 0.0


TOKENS = st.lists(st.integers(0, 4), max_size=15)


@given(TOKENS, TOKENS)
def test_the_longest_common_run_is_that_of_a_plain_search(reference, answer):
    runs = {tuple(reference[i:j]) for j in range(len(reference) + 1) for i in range(j)}
    common = [run for run in runs if any(tuple(answer[k : k + len(run)]) == run for k in range(len(answer)))]
    wanted = max(map(len, common), default=0) / max(len(reference), 1)
    assert longest_common_run(reference, answer) == wanted
