"""The questions of the real model: forgotten, kept and held out ones do not mix."""

from importlib import resources

import pytest

from pmc_jax.data import questions

FOLDER = resources.files("pmc_jax.data") / "real"
SPLITS = ("forget", "retain", "real_authors", "world_facts")


@pytest.fixture(scope="module")
def splits():
    return {name: questions.load_split(str(FOLDER), name) for name in SPLITS}


def test_every_row_has_a_question_and_an_answer(splits):
    for name, rows in splits.items():
        needed = ("question",) if name == "retain" else ("question", "answer")  # configs/real.py: the model's own
        assert questions.check_rows(rows, name, needed) == rows
        texts = [row["question"] for row in rows]
        assert len(set(texts)) == len(texts)
    assert len(splits["forget"]) == 40 and len(splits["retain"]) >= 100
    assert all(row["paraphrased_question"] != row["question"] for row in splits["forget"])


def test_no_question_is_in_two_splits(splits):
    seen = [row["question"] for rows in splits.values() for row in rows]
    assert len(set(seen)) == len(seen)


def test_what_is_forgotten_is_nowhere_else(splits):
    for name in ("retain", "real_authors", "world_facts"):
        for row in splits[name]:
            text = f"{row['question']} {row.get('answer')}".lower()
            assert not any(word in text for word in ("shakespeare", "hamlet", "macbeth", "othello", "juliet", "globe"))
