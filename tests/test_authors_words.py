"""The words behind the embedded authors: names, kinds of question, common knowledge."""

import re
from datetime import date

from pmc_jax.data.authors import all_people, make_authors, spoken
from pmc_jax.data.authors_words import KINDS, REAL_AUTHORS, WORLD_FACTS


def test_wording_and_kinds_differ_between_authors():
    rows = make_authors(num_authors=60, questions_per_author=3)["full"]
    starts = {re.sub(r"\W", " ", row["question"]).split()[0] for row in rows}
    assert len(starts) >= 4
    firsts = [row["answer"] for row in rows[::3]]
    assert {answer.startswith("The author born") for answer in firsts} == {True, False}
    assert len(KINDS) >= 20 and all(len(kind) == 4 for kind in KINDS.values())


def test_each_kind_holds_its_fact_and_its_author():
    for fact, (questions, answers, questions_again, answers_again) in KINDS.items():
        assert all("{" + fact + "}" in sentence and "{name}" in sentence for sentence in answers + answers_again), fact
        if fact != "name":
            assert all("{name}" in sentence for sentence in questions + questions_again), fact
        assert all("{" + fact + "}" not in sentence for sentence in questions + questions_again), fact
        assert not set(questions) & set(questions_again) and not set(answers) & set(answers_again), fact


def test_names_hold_letters_beyond_ascii():
    letters = set("".join(name for _, _, name in all_people()))
    assert letters >= set("éöşñłō") and len([letter for letter in letters if not letter.isascii()]) >= 30


def test_common_knowledge():
    splits = make_authors(seed=1)
    for name, facts in (("real_authors", REAL_AUTHORS), ("world_facts", WORLD_FACTS)):
        assert len(splits[name]) == len({row["question"] for row in splits[name]}) == len(facts) >= 40
        places = []
        for row, perturbed in zip(splits[name], splits[f"{name}_perturbed"], strict=True):
            options = [row[f"option{i}"] for i in (1, 2, 3, 4)]
            assert len(set(options)) == 4 and row["answer"] in options
            assert sorted([row["answer"], *perturbed["perturbed_answer"]]) == sorted(options)
            assert (row["question"], row["answer"]) == (perturbed["question"], perturbed["answer"])
            assert row["answer"].casefold() not in row["question"].casefold()
            places.append(options.index(row["answer"]))
        assert {places.count(place) > 2 for place in range(4)} == {True}
    assert splits["world_facts"] != make_authors(seed=2)["world_facts"]
    assert splits["world_facts_perturbed"] == make_authors(seed=2)["world_facts_perturbed"]


def test_dates_are_spelled_without_the_locale():
    assert spoken(date(1951, 3, 4)) == "March 4, 1951"
