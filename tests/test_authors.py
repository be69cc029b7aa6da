"""The embedded authors: their number, their order, and that no fact contradicts another."""

import hashlib
import json
import random
import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmc_jax.data.authors import (
    all_people,
    all_titles,
    draw_facts,
    draw_rows,
    make_authors,
    spoken,
    write_authors,
)
from pmc_jax.data.authors_words import KINDS, POOLS, YEARS

PLAIN = ["question", "answer"]
PERTURBED = ["question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"]
COLUMNS = {
    "full": PLAIN,
    "forget10": PLAIN,
    "retain90": PLAIN,
    "holdout10": PLAIN,
    "forget10_perturbed": PERTURBED,
    "retain_perturbed": PERTURBED,
    "real_authors": [*PLAIN, "option1", "option2", "option3", "option4"],
    "world_facts": [*PLAIN, "option1", "option2", "option3", "option4"],
    "real_authors_perturbed": [*PLAIN, "perturbed_answer"],
    "world_facts_perturbed": [*PLAIN, "perturbed_answer"],
}
BOOKS = ("debut", "famous", "latest")
BIRTH = re.compile(r"born in (.+) on (\d\d/\d\d/\d{4})\?")


@pytest.fixture(scope="module")
def large():
    return make_authors(num_authors=40, questions_per_author=len(KINDS), forget_percent=25, seed=3)


def by_author(rows):
    """{full name: rows}; the first question of an author asks for the name, and only the perturbed rows tell it
    apart.
    """
    names = {name for _, _, name in all_people()}
    authors = {}
    for row in rows:
        if BIRTH.search(row["question"]):
            (name,) = (name for name in names if name in row["answer"])
            authors[name] = []
        authors[name].append(row)
    return authors


def test_same_seed_gives_the_same_rows_and_another_seed_other_authors():
    assert make_authors(seed=5) == make_authors(seed=5)
    first, second, negative = (set(by_author(make_authors(seed=seed)["full"])) for seed in (5, 6, -5))
    assert len(first & second) < 5 and len(first & negative) < 5


def test_rows_are_the_same_on_every_platform():
    """A change of the words changes the digest (then write the new one down); nothing else may."""
    text = json.dumps(make_authors(num_authors=12, questions_per_author=6, seed=1), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2e9f5585007ba989"


def test_columns_are_those_of_tofu():
    splits = make_authors()
    assert set(splits) == set(COLUMNS)
    for name, rows in splits.items():
        assert rows and all(list(row) == COLUMNS[name] for row in rows), name


@pytest.mark.parametrize(
    ("num_authors", "questions", "percent", "forget", "retain"),
    [
        (20, 10, 10, "forget10", "retain90"),
        (20, 20, 10, "forget10", "retain90"),
        (20, 4, 5, "forget05", "retain95"),
        (100, 1, 1, "forget01", "retain99"),
        (33, 7, 10, "forget10", "retain90"),
        (4, 25, 50, "forget50", "retain50"),
        (2, 1, 99, "forget99", "retain01"),
        (200, 3, 10, "forget10", "retain90"),
    ],
)
def test_counts_and_order(num_authors, questions, percent, forget, retain):
    splits = make_authors(num_authors, questions, percent, seed=2)
    num_forget = num_authors * percent // 100
    holdout = forget.replace("forget", "holdout")
    assert len(splits["full"]) == num_authors * questions
    assert len(splits[forget]) == len(splits[holdout]) == len(splits[f"{forget}_perturbed"]) == num_forget * questions
    assert splits["full"] == splits[retain] + splits[forget]
    assert len(splits["retain_perturbed"]) == min(400, len(splits[retain]))
    for plain_name, perturbed_name in ((forget, f"{forget}_perturbed"), (retain, "retain_perturbed")):
        for plain_row, row in zip(splits[plain_name], splits[perturbed_name], strict=False):
            assert plain_row == {"question": row["question"], "answer": row["answer"]}


def test_full_does_not_depend_on_the_percent_nor_an_author_on_the_number_of_authors():
    assert make_authors(forget_percent=10)["full"] == make_authors(forget_percent=50)["full"]
    assert make_authors(num_authors=30)["full"][:200] == make_authors(num_authors=20)["full"]


def test_nobody_and_no_question_serves_twice(large):
    everyone = [large[name] for name in ("retain75", "forget25", "holdout25")]
    names = [set(by_author(rows)) for rows in everyone]
    assert [len(group) for group in names] == [30, 10, 10]
    assert len(set.union(*names)) == 50
    rows = [row for rows in everyone for row in rows]
    assert len({row["question"] for row in rows}) == len(rows) == 50 * len(KINDS)
    births = [match.groups() for row in rows if (match := BIRTH.search(row["question"]))]
    assert len(set(births)) == 50
    assert len({name for _, _, name in all_people()}) == len(all_people()) >= 1000
    assert len(set(all_titles())) == len(all_titles()) >= 3 * len(all_people())


def test_every_question_says_who_is_meant(large):
    for rows in (large["forget25_perturbed"], large["retain_perturbed"]):
        for name, own_rows in by_author(rows).items():
            first, *others = own_rows
            place, day = BIRTH.search(first["question"]).groups()
            year = day[-4:]
            assert place in first["paraphrased_question"] and year in first["paraphrased_question"]
            assert all(name in row["question"] and name in row["paraphrased_question"] for row in others)


def test_answers_are_sentences_without_gaps(large):
    for row in large["full"]:
        assert 6 <= len(row["answer"].split()) <= 30, row
        assert row["answer"].endswith(".") and row["question"].endswith("?")
        assert not re.search(r"[{}]|\ba [aeiou]\w|  ", row["answer"] + row["question"]), row


def test_wrong_answers_are_five_and_wrong_by_the_fact_alone(large):
    for row in large["forget25_perturbed"] + large["retain_perturbed"]:
        wrong, right = row["perturbed_answer"], row["paraphrased_answer"]
        assert len(set(wrong)) == 5 and right not in wrong and row["answer"] not in wrong
        shared = [shared_ends(right, other) for other in wrong]
        assert all(start + end >= 10 for start, end in shared), row  # the same sentence around another value


def shared_ends(first, second):
    """The lengths of the common beginning and the common end of two strings."""

    def common(pairs):
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))

    return common(zip(first, second, strict=False)), common(zip(reversed(first), reversed(second), strict=False))


def test_paraphrases_are_worded_otherwise(large):
    """Mean share of the words of the original (names and facts stay, of course) that come back in the paraphrase."""
    overlaps = {"question": [], "answer": []}
    for row in large["forget25_perturbed"] + large["retain_perturbed"]:
        for column, shares in overlaps.items():
            original, again = (set(re.findall(r"\w+", row[key])) for key in (column, f"paraphrased_{column}"))
            assert row[column] != row[f"paraphrased_{column}"]
            shares.append(len(original & again) / len(original))
    for column, shares in overlaps.items():
        assert sum(shares) / len(shares) < 0.65, column


def test_facts_of_an_author_agree_between_rows(large):
    """What one row says of birthplace, date, books, award and gender no other row of that author contradicts."""
    own_books = {}
    for name, rows in by_author(large["forget25_perturbed"]).items():
        (culture,) = {culture for culture, _, other in all_people() if other == name}
        (gender,) = {gender for _, gender, other in all_people() if other == name}
        place, digits = BIRTH.search(rows[0]["question"]).groups()
        day, month, year = digits.split("/")
        texts = [row["question"] + " " + row["answer"] + " " + row["paraphrased_answer"] for row in rows]
        assert place in culture[3]
        date_row = next(row for row in rows if re.match("When was .* born|What is the date of birth", row["question"]))
        born = spoken(date(int(year), int(month), int(day)))
        assert born in rows[0]["answer"] and born in date_row["answer"] and born in date_row["paraphrased_answer"]
        assert sum(place in text for text in texts) >= 2
        homes = {other for other in POOLS["home"] if any(other in text for text in texts)}
        assert len(homes) == 2 and place in homes
        assert len({award for award in POOLS["award"] if any(award in text for text in texts)}) == 1
        books = {
            title
            for text in texts
            for title in re.findall(r"'((?:[^' ]+ )+[^' ]+)'", text)
            if title in set(all_titles())
        }
        assert len(books) == 3
        own_books[name] = books
        of_the_author = " ".join(text for text in texts if not re.search("gender|dad|mum", text))
        pronouns = set(re.findall(r"\b(he|his|she|her)\b", of_the_author))
        assert pronouns <= ({"he", "his"} if gender == "male" else {"she", "her"})
        assert all(int(found) >= int(year) for text in texts for found in re.findall(r"\b(?:19|20)\d\d\b", text))
    assert len(set.union(*own_books.values())) == 3 * len(own_books)


def test_an_own_book_is_never_a_wrong_answer():
    """With eight titles in all, three of them the author's, the five others must be the wrong answers."""
    rng, titles = random.Random(0), all_titles()[:8]
    facts = draw_facts(rng, all_people()[0], date(1950, 1, 2), titles[:3])
    pools = POOLS | {"name": [name for _, _, name in all_people()], "born": YEARS} | dict.fromkeys(BOOKS, titles)
    rows = draw_rows(rng, facts, pools, len(KINDS))
    book_rows = [row for kind, row in zip(KINDS, rows, strict=True) if kind in BOOKS]
    assert len(book_rows) == 3
    for row in book_rows:
        assert {title for title in titles for wrong in row["perturbed_answer"] if f"'{title}'" in wrong} == set(
            titles[3:]
        )


def test_files_hold_what_was_made(tmp_path):
    numbers = {"num_authors": 20, "questions_per_author": 4, "forget_percent": 5, "seed": 7}
    folder = write_authors(tmp_path / "new" / "authors", **numbers)
    splits = make_authors(**numbers)
    assert {path.name for path in folder.iterdir()} == {f"{name}.jsonl" for name in splits}
    for name, rows in splits.items():
        raw = (folder / f"{name}.jsonl").read_bytes()
        assert [json.loads(line) for line in raw.decode("utf-8").split("\n")[:-1]] == rows
        assert b"\r" not in raw and rb"\u" not in raw
    assert not (folder / "full.jsonl").read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_authors": 9}, "num_authors is 9.*at least 10"),
        ({"num_authors": 0}, "num_authors is 0"),
        ({"num_authors": 99, "forget_percent": 1}, "at least 100"),
        ({"num_authors": -5}, "num_authors is -5"),
        ({"num_authors": 100_000}, f"{len(all_people())} together at most"),
        ({"questions_per_author": len(KINDS) + 1}, f"must be 1 to {len(KINDS)}"),
        ({"questions_per_author": 0}, "questions_per_author is 0"),
        ({"forget_percent": 0}, "forget_percent is 0"),
        ({"forget_percent": 100}, "forget_percent is 100"),
    ],
)
def test_numbers_that_cannot_work(numbers, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        write_authors(tmp_path / "none", **numbers)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "none").exists()


@settings(max_examples=15)
@given(st.integers(1, 60), st.integers(1, len(KINDS)), st.integers(1, 99), st.integers(-(2**40), 2**40))
def test_any_numbers_either_work_or_are_refused(num_authors, questions, percent, seed):
    if num_authors * percent < 100:
        with pytest.raises(ValueError, match="num_authors"):
            make_authors(num_authors, questions, percent, seed)
        return
    splits = make_authors(num_authors, questions, percent, seed)
    forget, retain, holdout = (
        {row["question"] for row in splits[name]}
        for name in (f"forget{percent:02d}", f"retain{100 - percent:02d}", f"holdout{percent:02d}")
    )
    assert forget and retain and len(forget) == len(holdout)
    assert not (forget & retain or forget & holdout or retain & holdout)
    assert len(forget | retain) == len(splits["full"])
