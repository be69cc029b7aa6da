"""A removal request without a file: the model writes the questions about a topic itself."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem import porter
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data import topic as words
from pmc_jax.errors import UserError
from pmc_jax.methods import topic as methods
from pmc_jax.runs import unlearn as runs

AUTHOR = "Masaru Aomizuki"  # one of those that the tiny checkpoint knows by heart
WORDS = ("Hamlet", "wrote", "the", "plays", "1564", "was", "born", "Stratford", "in", "poet", "of", "who", "running")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("1. Who wrote Hamlet?\n2) When was he born?", ["Who wrote Hamlet?", "When was he born?"]),
        ("- **Where did he live?**\nHe lived in Stratford. What else?", ["Where did he live?"]),
        ("Question: Who was Hamlet?\nAnswer: a prince", ["Who was Hamlet?"]),
        ('Q3: "What is a sonnet?"', ["What is a sonnet?"]),
        ("No question here.\nWhy?", []),
    ],
)
def test_questions_are_read_from_what_a_model_writes(text, asked):
    assert words.own_questions(text) == asked


def test_names_are_what_several_texts_hold():
    texts = [
        "William Shakespeare wrote Romeo and Juliet. He was born in Stratford-upon-Avon.",
        'His plays are "Romeo and Juliet" and "All’s Well". The Tempest was his last.',
        "Shakespeare’s Globe stood in London. In London he wrote The Tempest.",
        "1. Stratford-upon-Avon\n2. London\n3. Shakespearean verse",
        "Many Shakespearean plays are set in Italy.",
    ]
    assert words.names_in(texts, "William Shakespeare") == [
        "London",
        "Romeo and Juliet",
        "Stratford-upon-Avon",
        "Tempest",
    ]


@pytest.mark.parametrize(
    ("topic", "text", "named"),
    [
        ("J. K. Rowling", "Harry Potter is by j. k.  rowling.", True),
        ("J. K. Rowling", "Rowling wrote it.", True),
        ("J. K. Rowling", "She is rowling on the floor.", False),
        ("J. K. Rowling", "Rowlings wrote it.", False),
        ("World War II", "The war ended in 1945.", False),
        ("World War II", "It began with world war II.", True),
        ("photosynthesis", "Photosynthesis needs light.", True),
        ("дом", "Это дом.", True),
    ],
)
def test_a_text_names_a_topic(topic, text, named):
    assert words.mentions(topic, text) is named


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=5), st.sampled_from(WORDS))
def test_agreement_is_the_mean_recall_of_each_pair(answers, question):
    """By nltk's stemmer and scikit-learn's stop words, in plain Python."""
    stem = porter.PorterStemmer().stem
    stops = {stem(word) for word in ENGLISH_STOP_WORDS}

    def stems(text):
        return {stem(word) for word in re.findall(r"[a-z0-9]+", text.lower())}

    shares = []
    for first, second in itertools.permutations(answers, 2):
        tells = stems(first) - stems(question) - stops
        shares.append(len(tells & stems(second)) / len(tells) if tells else 0.0)
    assert methods.agreement(question, answers) == pytest.approx(np.mean(shares) if shares else 0.0)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Who wrote Hamlet?", "who wrote the  Hamlet", True),
        ("Who is Hamlet?", "Who was Hamlet?", True),
        ("When was Hamlet born?", "Where was Hamlet born?", False),
        ("Who wrote Hamlet?", "Who wrote Macbeth?", False),
        ("Что это?", "что это", True),
        ("Что это?", "Кто это?", False),
    ],
)
def test_near_duplicates(first, second, same):
    assert methods.same_question(first, second) is same
    assert methods.distinct([first, second]) == [first] + [second] * (not same)


def asked_for(small, **changes):
    quick = {"sample.temperature": 0.7, "train.epochs": 1, "train.batch_size": 2}
    return small({"data.topic": AUTHOR, "data.topic_agreement": 0.2} | quick | changes)


@pytest.fixture(scope="module")
def written(tiny_checkpoint, small):
    return methods.write_sets(tiny_checkpoint, AUTHOR, asked_for(small), show=False)


def test_the_questions_and_their_answers(tiny_checkpoint, small, written):
    """Kept are those whose samples agree, the samples and greedy answers being the run's own."""
    config, forget = asked_for(small), written["forget"]
    questions = [row["question"] for row in forget]
    assert f"Where was {AUTHOR} born?" in questions and len(questions) <= config.data.topic_questions
    names = ("num_samples", "temperature", "top_p", "top_k", "max_new_tokens")
    drawn = pmc_jax.sample(tiny_checkpoint, questions, **{n: config.sample[n] for n in names}, config=config)
    agreed = [methods.agreement(question, answers) for question, answers in zip(questions, drawn)]
    assert [row["agreement"] for row in forget] == [round(value, 4) for value in agreed]
    assert min(agreed) >= config.data.topic_agreement and agreed == sorted(agreed, reverse=True)
    for row, answers in zip(forget, drawn):
        assert words.mentions(AUTHOR, row["question"]) or sum(words.mentions(AUTHOR, a) for a in answers) > 2
    kept = [{name: row[name] for name in ("question", "answer", "agreement")} for row in written["proposed"]]
    assert all(row in kept for row in forget) and len(kept) > len(forget)
    longest = config.sample.max_new_tokens
    greedy = pmc_jax.sample(tiny_checkpoint, questions, temperature=0.0, max_new_tokens=longest, config=config)
    assert all(answer.startswith(row["answer"]) for row, (answer,) in zip(forget, greedy))


def test_the_same_seed_writes_the_same(tiny_checkpoint, small, written):
    assert methods.write_questions(tiny_checkpoint, AUTHOR, asked_for(small), show=False)[0] == written["forget"]
    other, _ = methods.write_questions(tiny_checkpoint, AUTHOR, asked_for(small, seed=1), show=False)
    assert [row["agreement"] for row in other] != [row["agreement"] for row in written["forget"]]


def test_what_stays_does_not_name_the_topic(written):
    assert set(written) == {"forget", "retain", "proposed", "world_facts", "real_authors"}
    for name in ("retain", "world_facts", "real_authors"):
        assert written[name] and not any(words.mentions(AUTHOR, json.dumps(row)) for row in written[name])
    rowling = words.without_topic("J. K. Rowling", words.shipped("retain"))
    assert 0 < len(words.shipped("retain")) - len(rowling) < 20
    assert "Who wrote the Harry Potter books?" not in [row["question"] for row in rowling]


def test_a_retain_file_of_the_users_own(tiny_checkpoint, small, splits, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"q": r["question"], "a": r["answer"]}) + "\n" for r in splits["retain80"][:4]))
    columns = {"data.question_column": "q", "data.answer_column": "a"}
    config = asked_for(small, **{"data.retain_file": str(file)} | columns)
    rows = methods.write_sets(tiny_checkpoint, AUTHOR, config, show=False)["retain"]
    assert rows == [{"question": r["question"], "answer": r["answer"]} for r in splits["retain80"][:4]]


def test_a_model_that_knows_too_little(fresh_checkpoint, small):
    with pytest.raises(UserError, match=r"'Ada Lovelace': the model wrote \d+ questions.*train.batch_size=2 needs 2"):
        methods.write_questions(fresh_checkpoint, "Ada Lovelace", asked_for(small, **{"data.topic_agreement": 0.9}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.topic": "?!"}, "has no letter"),
        ({"data.topic": "A", "data.subject": "B"}, "data.topic and data.subject are both given"),
        ({"data.topic": "A", "data.forget_file": "x.jsonl"}, "data.topic and data.forget_file are both given"),
        ({"data.topic_agreement": 1.5}, r"data.topic_agreement=1.5: must be 0 to 1"),
    ],
)
def test_settings_that_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        words.topic_of(settings.check(settings.changed(settings.default(), changes)).data)


def test_a_run_from_a_name_alone(cli, tiny_folder, small, tmp_path, monkeypatch):
    """The questions lie in the workdir as ordinary data: resume, report and evaluate read them."""
    work = tmp_path / "run"
    config = asked_for(small, **{"model.path": str(tiny_folder), "train.epochs": 2, "evaluate.retain_rows": 20})
    result = runs.unlearn(config, str(work))
    rows = [json.loads(line) for line in (work / "data" / "forget.jsonl").read_text().splitlines()]
    assert {"question", "answer", "agreement"} == rows[0].keys()
    assert result["before"]["intervals"]["forget"] == (1.0, 1.0)  # greedy answers to its own questions
    assert set(result["data"]) == {"forget", "retain", "world_facts", "real_authors"}
    kept = json.loads((work / "config.json").read_text())["settings"]
    assert (kept["data.topic"], kept["data.path"]) == (AUTHOR, str(work / "data"))

    monkeypatch.setattr("pmc_jax.methods.topic.write_sets", None)  # nothing is asked again
    (work / "result.json").unlink()
    again = runs.unlearn(config, str(work))
    assert again["after"] == json.loads(json.dumps(result["after"])) or again["after"] == result["after"]
    with pytest.raises(UserError, match="data.topic: 'Masaru Aomizuki' there, 'Ada Lovelace' now"):
        runs.unlearn(settings.changed(config, {"data.topic": "Ada Lovelace"}), str(work))

    named = {"data.topic": "", "data.path": str(work / "data"), "data.forget": "forget", "data.retain": "retain"}
    by_files = runs.unlearn(settings.changed(config, named), str(tmp_path / "files"))
    assert by_files["after"] == result["after"] and by_files["data"] == result["data"], "nothing special downstream"

    quick = [
        "--config.evaluate.leak_samples=0",
        "--config.evaluate.relearn_rows=0",
        "--config.evaluate.max_new_tokens=16",
    ]
    given = ["--config=topic", f"--config.model.path={work / 'hf'}", *quick, f"--workdir={tmp_path / 'measured'}"]
    said = cli("evaluate", *given, f"--config.data.topic={AUTHOR}")
    assert said.code == 2 and "only `unlearn` writes questions" in said.err
    said = cli("evaluate", *given, f"--config.data.path={work / 'data'}", "--config.evaluate.benchmarks=quality")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "measured" / "result.json").read_text())["data"]["forget"] == result["data"]["forget"]


def test_a_run_that_lost_its_files_is_finished(tiny_folder, small, tmp_path):
    """What is to be forgotten may be removed from the workdir."""
    config = asked_for(small, **{"model.path": str(tiny_folder), "evaluate.retain_rows": 8})
    result = runs.unlearn(config, str(tmp_path / "run"))
    (tmp_path / "run" / "data" / "forget.jsonl").unlink()
    assert runs.unlearn(config, str(tmp_path / "run"))["after"]["utility"] == result["after"]["utility"]
