"""Rewards: the table, the user's own, and what a score may be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.rewards import REWARDS, check_references, resolve_reward, score
from pmc_jax.methods.selection import select

OWN = """
from pmc_jax.methods.rewards import REWARDS, Reward, per_answer

def shorter(reference, answers):
    "Score: length of the answer by that of the reference, at most 1."
    return [min(1.0, len(a) / len(reference.strip())) for a in answers]

def too_few(reference, answers):
    return [0.5]

def too_high(reference, answers):
    return [1.5 for a in answers]

def no_number(reference, answers):
    return ["a" for a in answers]

growing = per_answer(lambda size, a: min(1.0, len(a) / size), lambda reference, question: len(reference), grows=True)
batch = Reward(lambda reference, question: question, lambda asked, answers: [[len(q) / 10] * 2 for q in asked])
text = "no reward"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own in the working folder."""
    (tmp_path / "own_rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


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


def test_a_function_of_the_users_own(own):
    wanted = [[0.5, 1.0], [0.0, 0.75]]
    assert score([" "], [["ab", ""]], "own_rewards:shorter").tolist() == [[0.0, 0.0]], "it is not asked"
    texts = (["abcd", "abcd"], [["ab", "abcdef"], ["", "abc"]])
    assert score(*texts, "own_rewards:shorter").tolist() == score(*texts, "own_rewards:growing").tolist() == wanted
    assert score(*texts, "own_rewards:batch", questions=["who", "where"]).tolist() == [[0.3, 0.3], [0.5, 0.5]]
    assert (
        resolve_reward("own_rewards:shorter").lower_bound is None and resolve_reward("own_rewards:growing").lower_bound
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("own_rewards:too_few", "must return one number an answer, 2 a question"),
        ("own_rewards:no_number", "must return one number an answer"),
        ("own_rewards:too_high", "a score must be in 0..1, not 1.5"),
        ("own_rewards:text", "a function .*not a str"),
        ("own_rewards:missing", "has no 'missing'"),
        ("own_rewarts:shorter", "No module named 'own_rewarts'"),
        ("bleu", "choose one of 'rouge_l_recall', .*or name your own as 'module:attribute'"),
    ],
)
def test_a_reward_that_is_none(own, name, message):
    with pytest.raises(UserError, match=f"^pmc.reward='{name}': .*{message}") as caught:
        score(["a"], [["a", "b"]], name)
    assert "\n" not in str(caught.value)


def test_the_command_line_refuses_a_reward_before_the_model_is_loaded(cli, tmp_path, data_folder, tiny_folder):
    work, broken = tmp_path / "run", tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((tiny_folder / "config.json").read_text())
    settings_ = {"model.path": broken, "data.path": data_folder, "data.forget": "forget20", "data.retain": "retain80"}
    given_ = [f"--config.{name}={value}" for name, value in settings_.items()]
    said = cli("unlearn", f"--workdir={work}", *given_, "--config.train.batch_size=4", "--config.pmc.reward=bleu")
    assert said.code == 2 and "pmc.reward='bleu': choose one of" in said.err and not (work / "before.json").exists()


UNITS = st.sampled_from("the The author's writes writing 1971, Konya Yıldız日本 Москве... naïve a - 🙂 U.S.A.".split())


@st.composite
def beginnings(draw):
    """(reference, beginning, whole answer): lists of words with something in common."""
    reference = draw(st.lists(UNITS, min_size=1, max_size=12))
    words = st.lists(UNITS | st.sampled_from(reference), max_size=12)
    beginning = draw(words)
    return reference, beginning, beginning + draw(words)


@pytest.mark.parametrize("name", [name for name, reward in REWARDS.items() if reward.lower_bound])
@settings(max_examples=200)
@given(beginnings(), st.sampled_from(["", "Who is the author?"]), st.sampled_from(" \n"))
def test_no_answer_scores_below_the_bound_of_its_beginning(name, texts, question, space):
    reward = REWARDS[name]
    reference, beginning, whole = texts if reward.reads == "tokens" else (space.join(words) for words in texts)
    prepared = reward.prepare(reference, question)
    value = float(np.asarray(reward.score([prepared], [[whole]]))[0, 0])
    assert 0 <= reward.lower_bound(prepared, beginning) <= value <= 1


@pytest.mark.parametrize("name", ["rouge_l_f1", "chrf"])
def test_a_score_that_falls_as_the_answer_grows_has_no_bound(name):
    assert REWARDS[name].lower_bound is None
    first, longer = score(["one two three"], [["one two three", "one two three and much else"]], name)[0]
    assert longer < first


@pytest.mark.parametrize("name", REWARDS)
def test_the_reference_itself_scores_one_and_nothing_scores_zero(name, tokenizer):
    reference = "The author was born in Ankara"
    scores = score([reference], [[reference, ""]], name, questions=["Where?"], tokenizer=tokenizer)
    assert scores.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    "name, seen, unseen",
    [
        ("rouge_l_recall", "Yes", "Она родилась в Москве."),
        ("rouge_l_f1", "Yes", "東京"),
        ("rouge_1_recall", "Yes", "€ 🙂"),
        ("rouge_1_recall", "...", "東京 ..."),
        ("rouge_2_recall", "Yes sir", "Yes"),
        ("rouge_l_recall", "Besides Лісова пісня she wrote five books.", "Она родилась в Москве, год 1931."),
        ("content_recall", "Она", "🙂 ..."),
        ("content_recall", "東京", "🙂"),
        ("content_recall", "?!", None),
        ("chrf", "🙂", None),
        ("longest_common_run", "...", None),
    ],
)
def test_what_a_score_can_see(name, seen, unseen):
    # an empty answer, or punctuation, holds nothing that could be forgotten
    check_references(name, ["Who?", "When?"], [seen, " "])
    if unseen:
        with pytest.raises(UserError, match=f"^forget row 2: pmc.reward='{name}' sees .* only, too l") as caught:
            check_references(name, ["When?", "Who?"], ["", unseen])
        assert unseen not in str(caught.value), "forget texts are not told"


def test_a_refused_reward_names_the_share_and_one_that_would_do():
    for answer, words in [
        ("Она родилась в Москве, год 1931.", ("(16% of its letters and digits)", "=content_recall sees every script")),
        ("🙂🙂", ("too little of the model's answer;", "=longest_common_run sees every token")),
    ]:
        with pytest.raises(UserError) as caught:
            check_references("rouge_l_recall", ["Где?"], [answer])
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_on_the_surface():
    assert pmc_jax.score(["one two"], [["two"]]).tolist() == [[0.5]]
