"""The embedded data set: fictitious authors in TOFU's shape, made on the spot from a seed.

Nothing is downloaded and nothing is stored: the demo, the tests and machines without a network get the splits, the
columns and the kinds of row of TOFU (Maini et al. 2024, arXiv:2401.06121) from the word lists in `authors_words.py`.
"""

import json
import os
import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from pmc_jax.data.authors_words import (
    CULTURES,
    KINDS,
    POOLS,
    REAL_AUTHORS,
    TITLE_ADJECTIVES,
    TITLE_NOUNS,
    TITLE_PATTERNS,
    WORLD_FACTS,
)

NUM_WRONG = 5  # wrong answers per row, as in TOFU
MAX_RETAIN_PERTURBED = 400  # rows, as in TOFU
MONTHS = "January February March April May June July August September October November December".split()
FIRST_BIRTHDAY, LAST_BIRTHDAY = date(1930, 1, 1), date(1975, 12, 31)  # late enough for an award by 2022


def make_authors(
    num_authors: int = 20, questions_per_author: int = 10, forget_percent: int = 10, seed: int = 0
) -> dict[str, list[dict]]:
    """Make the data set, with TOFU's split names, columns and order.

    The same arguments give the same rows on every platform.

    Args:
        num_authors: authors in `full`; the holdout authors come on top.
        questions_per_author: questions about each of them.
        forget_percent: share of the authors to forget, rounded down to whole authors.
        seed: chooses the authors and their facts.

    Returns:
        {split: rows}. For 10 percent: full, forget10, retain90, holdout10 (as many authors as forget10, in no other
        split), forget10_perturbed, retain_perturbed (the first 400 retain rows), real_authors, world_facts and their
        _perturbed. `full` is retain followed by forget; it does not depend on the percent.

    Raises:
        ValueError: nobody is left to forget or to retain, or the word lists cannot give so much.
    """
    num_forget = forget_count(num_authors, questions_per_author, forget_percent)
    authors = list(draw_authors(num_authors + num_forget, questions_per_author, seed))
    num_retain = num_authors - num_forget
    retain = flatten(authors[:num_retain])
    forget = flatten(authors[num_retain:num_authors])
    holdout = flatten(authors[num_authors:])
    forget_name = f"forget{forget_percent:02d}"
    return {
        "full": plain(retain + forget),
        forget_name: plain(forget),
        f"retain{100 - forget_percent:02d}": plain(retain),
        f"holdout{forget_percent:02d}": plain(holdout),
        f"{forget_name}_perturbed": forget,
        "retain_perturbed": retain[:MAX_RETAIN_PERTURBED],
        "real_authors": with_options(REAL_AUTHORS, seed),
        "real_authors_perturbed": with_wrong_answers(REAL_AUTHORS),
        "world_facts": with_options(WORLD_FACTS, seed),
        "world_facts_perturbed": with_wrong_answers(WORLD_FACTS),
    }


def write_authors(folder: str | os.PathLike, **settings) -> Path:
    """Write `make_authors(**settings)` into `folder`, one UTF-8 JSONL file a split. Returns the folder."""
    splits = make_authors(**settings)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return folder


def forget_count(num_authors: int, questions_per_author: int, forget_percent: int) -> int:
    """The number of authors to forget, rounded down; raises ValueError where the three numbers cannot work."""
    if not 1 <= questions_per_author <= len(KINDS):
        raise ValueError(
            f"questions_per_author is {questions_per_author}: must be 1 to {len(KINDS)}, one per kind of question"
        )
    if not 1 <= forget_percent <= 99:
        raise ValueError(
            f"forget_percent is {forget_percent}: must be 1 to 99, or nobody is left to forget or to retain"
        )
    num_forget = num_authors * forget_percent // 100
    if num_forget < 1:
        least = -(-100 // forget_percent)
        raise ValueError(
            f"num_authors is {num_authors}: {forget_percent} percent of that is no author, must be at least {least}"
        )
    num_names = len(all_people())
    if num_authors + num_forget > num_names:
        raise ValueError(
            f"num_authors is {num_authors}: with {num_forget} holdout authors, must be {num_names} together at most"
        )
    return num_forget


def draw_authors(num_authors: int, questions_per_author: int, seed: int) -> Iterator[list[dict]]:
    """Yields the perturbed rows of one author after the other; author i is the same whatever `num_authors` is."""
    # A string, as an integer seed loses its sign; strings go through sha512 on every platform.
    rng = random.Random(f"authors {seed}")
    people, titles = shuffled(rng, all_people()), shuffled(rng, all_titles())
    days = shuffled(rng, range(FIRST_BIRTHDAY.toordinal(), LAST_BIRTHDAY.toordinal() + 1))
    for i in range(num_authors):
        # No day, name or title serves twice: that makes "the author born in CITY on DATE" one author.
        facts = draw_facts(rng, people[i], date.fromordinal(days[i]), titles[3 * i : 3 * i + 3])
        pools = POOLS | {
            "name": namesakes(*people[i]),
            "born": [spoken(date.fromordinal(day)) for day in days[-50:]],
            "debut": titles,
            "famous": titles,
            "latest": titles,
        }
        yield draw_rows(rng, facts, pools, questions_per_author)


def draw_facts(rng: random.Random, person: tuple, birthday: date, titles: list[str]) -> dict[str, str]:
    """All that is known of one author, as words to fill into the sentences of `KINDS`."""
    culture, gender, name = person
    facts = {fact: rng.choice(values) for fact, values in POOLS.items()}
    father, mother, job, hero = rng.sample(POOLS["job"], 4)
    birthplace, home = rng.sample(culture[3].split("; "), 2)
    debut_year = birthday.year + rng.randint(22, 32)
    debut, famous, latest = titles
    he, his = ("he", "his") if gender == "male" else ("she", "her")
    return facts | {
        "name": name,
        "gender": gender,
        "he": he,
        "his": his,
        "birthplace": birthplace,
        "home": home,
        "born": spoken(birthday),
        "digits": f"{birthday.day:02d}/{birthday.month:02d}/{birthday.year}",
        "father": father,
        "mother": mother,
        "job": job,
        "hero": hero,
        "debut": debut,
        "famous": famous,
        "latest": latest,
        "debut_year": str(debut_year),
        "award_year": str(debut_year + rng.randint(2, 14)),
    }


def draw_rows(
    rng: random.Random, facts: dict[str, str], pools: dict[str, list[str]], questions_per_author: int
) -> list[dict]:
    """The rows of one author: the name first, then kinds of question and wordings drawn for this author."""
    name_kind, *others = KINDS
    kept = set(rng.sample(others, questions_per_author - 1))
    rows = []
    for kind in [name_kind, *(kind for kind in others if kind in kept)]:
        question, answer, question_again, answer_again = (rng.choice(sentences) for sentences in KINDS[kind])
        # Another book of the author's own would be no wrong answer.
        own = {facts[name] for name in ("debut", "famous", "latest", kind)}
        wrong = rng.sample([value for value in pools[kind] if value not in own], NUM_WRONG)
        rows.append(
            {
                "question": question.format(**facts),
                "answer": answer.format(**facts),
                "paraphrased_answer": answer_again.format(**facts),
                "perturbed_answer": [answer_again.format(**(facts | {kind: value})) for value in wrong],
                "paraphrased_question": question_again.format(**facts),
            }
        )
    return rows


def all_people() -> list[tuple]:
    """Every (culture, gender, full name) there is; no name twice."""
    return [
        (culture, gender, f"{given} {family}")
        for culture in CULTURES
        for gender, givens in (("male", culture[0]), ("female", culture[1]))
        for given in givens.split()
        for family in culture[2].split()
    ]


def namesakes(culture: tuple, gender: str, name: str) -> list[str]:
    """Names that could be taken for `name`: the same culture and gender, so that neither gives a wrong answer away."""
    return [
        other
        for other_culture, other_gender, other in all_people()
        if (other_culture, other_gender) == (culture, gender)
    ]


def all_titles() -> list[str]:
    """Every book title there is; no title twice."""
    return [pattern.format(a=a, n=n) for pattern in TITLE_PATTERNS for a in TITLE_ADJECTIVES for n in TITLE_NOUNS]


def spoken(day: date) -> str:
    """ "March 14, 1951"; not strftime, whose month names follow the machine's language."""
    return f"{MONTHS[day.month - 1]} {day.day}, {day.year}"


def with_options(facts: list[tuple], seed: int) -> list[dict]:
    """Multiple-choice rows, the answer at a position drawn from the seed."""
    rng = random.Random(f"options {seed}")
    rows = []
    for question, answer, *wrong in facts:
        options = shuffled(rng, [answer, *wrong])
        rows.append(
            {"question": question, "answer": answer, **{f"option{i}": option for i, option in enumerate(options, 1)}}
        )
    return rows


def with_wrong_answers(facts: list[tuple]) -> list[dict]:
    """Facts as rows of a _perturbed split: question, answer, three wrong answers."""
    return [{"question": question, "answer": answer, "perturbed_answer": wrong} for question, answer, *wrong in facts]


def plain(rows: list[dict]) -> list[dict]:
    """The rows with question and answer only."""
    return [{"question": row["question"], "answer": row["answer"]} for row in rows]


def flatten(lists: list[list]) -> list:
    """All rows of all lists, in order."""
    return [row for rows in lists for row in rows]


def shuffled(rng: random.Random, values) -> list:
    """The values in an order drawn from `rng`."""
    return rng.sample(list(values), len(values))
