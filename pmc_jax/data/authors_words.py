"""What `authors.py` draws from, read from `authors.json`: names, the values of every fact, the kinds of question.

Given names and cities are everyday ones. Family names, titles and prizes are made up: no author is meant to be a living
person.
"""

import json
from pathlib import Path

_WORDS = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))

# (given names of men, given names of women, family names, birthplaces), one entry a culture.
CULTURES = [(c["male"], c["female"], c["family"], c["places"]) for c in _WORDS["cultures"]]
TITLE_PATTERNS, TITLE_ADJECTIVES, TITLE_NOUNS = (
    _WORDS[name] for name in ("title_patterns", "title_adjectives", "title_nouns")
)
PLACES = [place for *_, places in CULTURES for place in places.split("; ")]
YEARS = [str(year) for year in range(1955, 2023)]

# Every value that a fact can have, by fact. `authors.py` adds "name", "born" and the books, whose values depend on the
# seed. The order decides what is drawn.
POOLS: dict[str, list[str]] = {
    "gender": _WORDS["pools"]["gender"],
    **dict.fromkeys(("birthplace", "home"), PLACES),
    **dict.fromkeys(("father", "mother", "job", "hero"), _WORDS["occupations"]),
    **dict.fromkeys(("debut_year", "award_year"), YEARS),
    **{fact: values for fact, values in _WORDS["pools"].items() if fact != "gender"},
}

# fact -> (questions, answers, paraphrased questions, paraphrased answers). A paraphrased answer holds {fact}. A wrong
# answer is that sentence with another value in its place, so nothing else in it may give the fact away (no pronoun in
# "gender").
KINDS: dict[str, tuple[list[str], ...]] = {fact: tuple(kind.values()) for fact, kind in _WORDS["kinds"].items()}

# (question, answer, three wrong answers): what no unlearning of invented authors may touch.
REAL_AUTHORS: list[list[str]] = _WORDS["real_authors"]
WORLD_FACTS: list[list[str]] = _WORDS["world_facts"]
