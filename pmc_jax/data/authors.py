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

from pmc_jax.data.authors_words import CULTURES, KINDS, POOLS, TITLE_ADJECTIVES, TITLE_NOUNS, TITLE_PATTERNS

NUM_WRONG = 5  # wrong answers per row, as in TOFU
MAX_RETAIN_PERTURBED = 400  # rows, as in TOFU
MONTHS = "January February March April May June July August September October November December".split()
FIRST_BIRTHDAY, LAST_BIRTHDAY = date(1930, 1, 1), date(1975, 12, 31)  # late enough for an award by 2022

# (question, answer, three wrong answers): what no unlearning of invented authors may touch.
REAL_AUTHORS = [
    ("Who is the author of the novel 'Dracula'?", "Bram Stoker", "Mary Shelley", "Oscar Wilde", "Arthur Machen"),
    ("Which novelist invented Victor Frankenstein?", "Mary Shelley", "Bram Stoker", "Emily Brontë", "Edgar Allan Poe"),
    ("Which novelist invented Elizabeth Bennet?", "Jane Austen", "George Eliot", "Fanny Burney", "Charlotte Brontë"),
    (
        "Who told the story of Captain Ahab and a white whale?",
        "Herman Melville",
        "Joseph Conrad",
        "Jack London",
        "Mark Twain",
    ),
    (
        "Who sent Phileas Fogg around the globe in eighty days?",
        "Jules Verne",
        "Alexandre Dumas",
        "H. G. Wells",
        "Victor Hugo",
    ),
    (
        "Which writer created the hunchback Quasimodo?",
        "Victor Hugo",
        "Gustave Flaubert",
        "Honoré de Balzac",
        "Jules Verne",
    ),
    ("Who is the author of 'Madame Bovary'?", "Gustave Flaubert", "Émile Zola", "Stendhal", "Marcel Proust"),
    ("Who let Gregor Samsa wake up as an insect?", "Franz Kafka", "Thomas Mann", "Hermann Hesse", "Robert Musil"),
    (
        "Whose novel follows the murderer Raskolnikov?",
        "Fyodor Dostoevsky",
        "Leo Tolstoy",
        "Anton Chekhov",
        "Nikolai Gogol",
    ),
    (
        "Who wrote about Natasha Rostova and Napoleon?",
        "Leo Tolstoy",
        "Ivan Turgenev",
        "Maxim Gorky",
        "Alexander Pushkin",
    ),
    (
        "Which dramatist wrote 'The Cherry Orchard'?",
        "Anton Chekhov",
        "Henrik Ibsen",
        "August Strindberg",
        "Nikolai Gogol",
    ),
    (
        "Who is the playwright of 'A Doll's House'?",
        "Henrik Ibsen",
        "August Strindberg",
        "George Bernard Shaw",
        "Anton Chekhov",
    ),
    (
        "Who described nine circles of hell in Italian verse?",
        "Dante Alighieri",
        "Petrarch",
        "Boccaccio",
        "Torquato Tasso",
    ),
    (
        "Who wrote the adventures of Sancho Panza?",
        "Miguel de Cervantes",
        "Lope de Vega",
        "Tirso de Molina",
        "Luis de Góngora",
    ),
    ("Which poet composed the 'Aeneid'?", "Virgil", "Homer", "Ovid", "Horace"),
    ("To which poet is the 'Iliad' traditionally attributed?", "Homer", "Sophocles", "Hesiod", "Virgil"),
    (
        "Who wrote the play 'Faust'?",
        "Johann Wolfgang von Goethe",
        "Friedrich Schiller",
        "Bertolt Brecht",
        "Heinrich Heine",
    ),
    (
        "Who gave the world Ebenezer Scrooge?",
        "Charles Dickens",
        "Thomas Hardy",
        "William Thackeray",
        "Anthony Trollope",
    ),
    ("Whose heroine is Tess of the d'Urbervilles?", "Thomas Hardy", "D. H. Lawrence", "George Eliot", "Henry James"),
    (
        "Which sister wrote 'Wuthering Heights'?",
        "Emily Brontë",
        "Charlotte Brontë",
        "Anne Brontë",
        "Christina Rossetti",
    ),
    (
        "Who invented the detective Hercule Poirot?",
        "Agatha Christie",
        "Dorothy L. Sayers",
        "P. D. James",
        "Ngaio Marsh",
    ),
    ("Who invented Long John Silver?", "Robert Louis Stevenson", "Daniel Defoe", "Walter Scott", "Rudyard Kipling"),
    (
        "Whose castaway meets a man called Friday?",
        "Daniel Defoe",
        "Jonathan Swift",
        "Henry Fielding",
        "Samuel Richardson",
    ),
    ("Who sent Gulliver to Lilliput?", "Jonathan Swift", "Alexander Pope", "Daniel Defoe", "Laurence Sterne"),
    ("Which author raised Mowgli among wolves?", "Rudyard Kipling", "E. M. Forster", "Kenneth Grahame", "J. M. Barrie"),
    ("Who imagined Peter Pan?", "J. M. Barrie", "Lewis Carroll", "A. A. Milne", "Beatrix Potter"),
    (
        "Who let a girl named Alice fall down a rabbit hole?",
        "Lewis Carroll",
        "Edward Lear",
        "Roald Dahl",
        "C. S. Lewis",
    ),
    (
        "Which author set Frodo on the road to Mordor?",
        "J. R. R. Tolkien",
        "C. S. Lewis",
        "Terry Pratchett",
        "T. H. White",
    ),
    ("Who is the author of 'Animal Farm'?", "George Orwell", "Aldous Huxley", "Graham Greene", "Evelyn Waugh"),
    ("Which novelist wrote 'Mrs Dalloway'?", "Virginia Woolf", "James Joyce", "Katherine Mansfield", "E. M. Forster"),
    (
        "Who followed Leopold Bloom through one day in Dublin?",
        "James Joyce",
        "Samuel Beckett",
        "W. B. Yeats",
        "Sean O'Casey",
    ),
    ("Who let two tramps wait for Godot?", "Samuel Beckett", "Eugène Ionesco", "Harold Pinter", "Albert Camus"),
    ("Which Frenchman wrote 'The Stranger'?", "Albert Camus", "Jean-Paul Sartre", "André Gide", "André Malraux"),
    ("Who wrote 'The Little Prince'?", "Antoine de Saint-Exupéry", "Jean Cocteau", "Marcel Pagnol", "Colette"),
    ("Whose raven says 'Nevermore'?", "Edgar Allan Poe", "Walt Whitman", "Nathaniel Hawthorne", "Emily Dickinson"),
    (
        "Which author floated Huckleberry Finn down the Mississippi?",
        "Mark Twain",
        "Bret Harte",
        "Stephen Crane",
        "O. Henry",
    ),
    (
        "Who wrote of an old man and a marlin near Cuba?",
        "Ernest Hemingway",
        "John Steinbeck",
        "William Faulkner",
        "Jack London",
    ),
    (
        "Whose novel follows the Joad family west?",
        "John Steinbeck",
        "Upton Sinclair",
        "Sinclair Lewis",
        "John Dos Passos",
    ),
    ("Which Nigerian wrote 'Things Fall Apart'?", "Chinua Achebe", "Wole Soyinka", "Ben Okri", "Amos Tutuola"),
    (
        "Who invented the town of Macondo?",
        "Gabriel García Márquez",
        "Jorge Luis Borges",
        "Julio Cortázar",
        "Mario Vargas Llosa",
    ),
]
WORLD_FACTS = [
    ("Which city is the capital of Norway?", "Oslo", "Bergen", "Stockholm", "Helsinki"),
    ("Which city is the capital of Canada?", "Ottawa", "Toronto", "Montreal", "Vancouver"),
    ("Which city is the capital of Kenya?", "Nairobi", "Mombasa", "Kampala", "Dodoma"),
    ("Which city is the capital of Peru?", "Lima", "Cusco", "Quito", "La Paz"),
    ("Which city is the capital of Turkey?", "Ankara", "Istanbul", "Izmir", "Bursa"),
    ("Which city is the capital of New Zealand?", "Wellington", "Auckland", "Christchurch", "Canberra"),
    ("Which river runs through Cairo?", "Nile", "Niger", "Congo", "Tigris"),
    ("Which river runs through Vienna?", "Danube", "Rhine", "Elbe", "Po"),
    ("In which mountain range does Mont Blanc stand?", "Alps", "Pyrenees", "Carpathians", "Apennines"),
    ("Which sea lies between Europe and Africa?", "Mediterranean Sea", "Black Sea", "Red Sea", "Baltic Sea"),
    ("Which canal joins the Atlantic and the Pacific?", "Panama Canal", "Suez Canal", "Kiel Canal", "Corinth Canal"),
    ("On which continent is the Atacama Desert?", "South America", "Africa", "Asia", "Australia"),
    ("Which country has the shape of a boot on the map?", "Italy", "Greece", "Portugal", "Croatia"),
    ("Which country covers the largest area?", "Russia", "Canada", "China", "Brazil"),
    ("What is the chemical symbol of iron?", "Fe", "Ir", "In", "Fr"),
    ("What is the chemical symbol of sodium?", "Na", "So", "Sd", "S"),
    ("Which element has the atomic number one?", "Hydrogen", "Helium", "Oxygen", "Lithium"),
    ("Which gas makes up most of the air?", "Nitrogen", "Oxygen", "Argon", "Carbon dioxide"),
    ("Which metal is liquid at room temperature?", "Mercury", "Lead", "Zinc", "Tin"),
    ("Of which element is diamond made?", "Carbon", "Silicon", "Boron", "Sulfur"),
    ("At how many degrees Celsius does water boil at sea level?", "100", "90", "120", "212"),
    ("Which planet is closest to the Sun?", "Mercury", "Venus", "Mars", "Earth"),
    ("Which planet has the Great Red Spot?", "Jupiter", "Saturn", "Neptune", "Uranus"),
    ("What force keeps the Moon in its orbit?", "Gravity", "Magnetism", "Friction", "Buoyancy"),
    ("What is the unit of electrical resistance?", "Ohm", "Volt", "Ampere", "Watt"),
    ("How many sides does a hexagon have?", "Six", "Five", "Seven", "Eight"),
    ("What is the square root of 144?", "12", "14", "11", "16"),
    ("How many minutes are there in a full day?", "1440", "1240", "2400", "3600"),
    ("Which organ pumps blood through the body?", "Heart", "Liver", "Lung", "Kidney"),
    ("Which nutrient does the skin make in sunlight?", "Vitamin D", "Vitamin C", "Vitamin A", "Vitamin K"),
    ("Which bird is the largest alive?", "Ostrich", "Emu", "Albatross", "Condor"),
    ("What do bees collect to make honey?", "Nectar", "Resin", "Dew", "Sap"),
    ("How many legs does a spider have?", "Eight", "Six", "Ten", "Four"),
    ("Which instrument has 88 keys?", "Piano", "Harp", "Guitar", "Trumpet"),
    ("Who painted the Sistine Chapel ceiling?", "Michelangelo", "Raphael", "Titian", "Caravaggio"),
    ("Who composed the opera 'The Magic Flute'?", "Mozart", "Verdi", "Wagner", "Rossini"),
    (
        "Who formulated the three laws of motion?",
        "Isaac Newton",
        "Albert Einstein",
        "Galileo Galilei",
        "Johannes Kepler",
    ),
    ("Who was the first person in space?", "Yuri Gagarin", "Neil Armstrong", "John Glenn", "Alan Shepard"),
    ("In which year did the Berlin Wall fall?", "1989", "1991", "1985", "1979"),
    ("Which currency is used in Japan?", "Yen", "Won", "Yuan", "Baht"),
]


def make_authors(
    num_authors: int = 20, questions_per_author: int = 10, forget_percent: int = 10, seed: int = 0
) -> dict[str, list[dict]]:
    """Makes the data set: {split name: rows}, with TOFU's config names, columns and order.

    Splits (for 10 percent): full, forget10, retain90, holdout10 (as many authors as forget10, in no other split),
    forget10_perturbed, retain_perturbed (the first 400 retain rows), real_authors, world_facts and their _perturbed.
    `full` is retain followed by forget and does not depend on the percent. The number to forget is rounded down to
    whole authors. The same arguments give the same rows on every platform.

    Raises ValueError where the numbers leave nobody to forget or retain, or ask for more than the word lists can give.
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
    """Writes `make_authors(**settings)` into `folder`, one UTF-8 JSONL file per split, and returns the folder."""
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
    rng = random.Random(
        f"authors {seed}"
    )  # a string, as an integer seed loses its sign; strings go through sha512 everywhere
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
    """The rows of one author: the name first, then kinds of question drawn for this author, each worded in its
    own way.
    """
    name_kind, *others = KINDS
    kept = set(rng.sample(others, questions_per_author - 1))
    rows = []
    for kind in [name_kind, *(kind for kind in others if kind in kept)]:
        question, answer, question_again, answer_again = (rng.choice(sentences) for sentences in KINDS[kind])
        own = {
            facts["debut"],
            facts["famous"],
            facts["latest"],
            facts[kind],
        }  # another own book would be no wrong answer
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
