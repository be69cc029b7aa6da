"""Sets held against each other: what is to be forgotten must not be trained on, and not be measured as what stays."""

import unicodedata
from collections.abc import Iterable, Mapping

import regex

from pmc_jax.data.parse import Rows
from pmc_jax.errors import UserError

ALLOW = "remove them, or set data.allow_overlap=True"
UNSEEN, BETWEEN = (
    regex.compile(r"\p{Cf}+"),
    regex.compile(r"[\p{P}\p{Z}\p{C}]+"),
)  # marks of a script are letters' parts
LONG_ANSWER = 6  # words from which on the same answer in two sets is no accident


def plain(text: str) -> str:
    """A text without what does not make it another one: case, white space, punctuation, the Unicode form of letters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", UNSEEN.sub("", text)).casefold())
    return BETWEEN.sub(" ", folded).strip() or " ".join(text.split())


def asked(row: Mapping[str, str]) -> set[str]:
    """The questions of a row, its paraphrase among them, without what does not make them others."""
    return {plain(row[key]) for key in ("question", "paraphrased_question") if row.get(key)}


def check_forget(forget: Rows, source: str = "the forget data") -> None:
    """UserError for a question that is there twice with different answers, or that is its own paraphrase."""
    answers: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(forget, 1):
        question, answer = plain(row["question"]), plain(row.get("answer") or "")
        if not answer:
            continue
        first, before = answers.setdefault(question, (number, answer))
        if before != answer:
            raise UserError(
                f"{source}, rows {first} and {number}: the same question ({_short(row)}) with two different answers; "
                "keep one, or set data.allow_overlap=True"
            )
    same = [n for n, r in enumerate(forget, 1) if plain(r.get("paraphrased_question") or "") == plain(r["question"])]
    if same:
        raise UserError(
            f"{source}: in {len(same)} of {len(forget)} rows 'paraphrased_question' is the question itself, first in "
            f"row {same[0]} ({_short(forget[same[0] - 1])}); a paraphrase uses other words, or leave the column out"
        )


def check_apart(forget: Rows, kept: Mapping[str, Rows]) -> None:
    """UserError where forget questions, or their paraphrases, stand in a set that must stay.

    Args:
        forget: rows to forget.
        kept: rows that must stay, by the set's name.
    """
    secret = {question: number for number, row in enumerate(forget, 1) for question in asked(row)}
    for name, rows in kept.items():
        questions = ((n, row, plain(row["question"])) for n, row in enumerate(rows, 1))
        hits = [(n, row, secret[question]) for n, row, question in questions if question in secret]
        if hits:
            number, row, other = hits[0]
            count = len({forget_number for _, _, forget_number in hits})
            raise UserError(
                f"{count} of {len(forget)} forget questions are also in the {name} data, first {name} row {number} = "
                f"forget row {other} ({_short(row)}): they would be kept, not forgotten; {ALLOW}"
            )


def same_answers(forget: Rows, retain: Rows) -> str:
    """A note on long answers that stand in both sets under other questions; empty where there are none."""
    secret = set(_long_answers(forget))
    shared = [number for number, answer in enumerate(_long_answers(retain), 1) if answer and answer in secret - {""}]
    if not shared:
        return ""
    return (
        f"{len(shared)} retain answers are word for word answers of forget rows, under other questions (first: retain "
        f"row {shared[0]}); training on them works against forgetting"
    )


def _long_answers(rows: Rows) -> Iterable[str]:
    answers = (plain(row.get("answer") or "") for row in rows)
    return (answer if len(answer.split()) >= LONG_ANSWER else "" for answer in answers)


def _short(row: Mapping[str, str]) -> str:
    return repr(" ".join(row["question"].split())[:40])
