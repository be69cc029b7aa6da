"""Forget, retain and evaluation rows: TOFU from the hub or a local folder, or files of the user's own."""

from typing import Any

import numpy as np

from pmc_jax.data import overlap
from pmc_jax.data.cut import cut
from pmc_jax.data.files import read_file, read_passages
from pmc_jax.data.parse import Rows
from pmc_jax.data.splits import has_split, load_split
from pmc_jax.data.subject import of_subject
from pmc_jax.data.windows import TEXT
from pmc_jax.errors import UserError, few

__all__ = ["Rows", "has_split", "load_split", "read_file"]  # what other modules take from here

PARAPHRASED = ("paraphrased_question", "paraphrased_answer")
UNRELATED = ("world_facts", "real_authors")  # sets that have nothing to do with what is forgotten, as TOFU names them


def name_columns(rows: Rows, source: str, data: Any, needed: tuple[str, ...]) -> Rows:
    """The rows with their columns called `question` and `answer`.

    The settings `data.question_column` and `data.answer_column` name them; a column inside another is written with a
    dot, as "qa.question". Case and spaces around a name do not matter.

    Args:
        rows: as read.
        source: what they were read from, for the message.
        data: the section `data` of the settings.
        needed: which of the two must be there.

    Raises:
        UserError: no row has such a column; the message lists those that are there.
    """
    for target in ("question", "answer"):
        column = data[f"{target}_column"]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        like = [k for k in keys if str(k).strip().casefold() == column.strip().casefold()]
        if column in keys or len(like) == 1:
            name = column if column in keys else like[0]
            rows = rows if name == target else [_renamed(row, name, target) for row in rows]
        elif column.split(".")[0] in keys:
            rows = [row | {target: _inside(row, column)} for row in rows]
        elif column != target or target in needed:
            raise UserError(
                f"{source}, row 1: {column!r} is missing in all rows; their columns: {few(keys, 6)}; name the right "
                f"one with --config.data.{target}_column=NAME"
            )
    return rows


def _renamed(row: dict[str, Any], name: str, target: str) -> dict[str, Any]:
    return {target: row.get(name)} | {k: v for k, v in row.items() if k not in (name, target)}


def _inside(row: dict[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def problem_of(value: Any) -> str:
    """What is wrong with a value that must be text; empty where it is fine."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"is a {type(value).__name__}, not text"
    if not any(c.isprintable() and not c.isspace() for c in value):
        return "is empty"
    return broken(value)


def broken(value: str) -> str:
    """Which characters of a text cannot be written again; empty where all can."""
    if "\0" in value:
        return "holds a NUL character"
    return "holds half a character (a lone surrogate)" if any("\ud800" <= c <= "\udfff" for c in value) else ""


def check_rows(rows: Rows, source: str, needed: tuple[str, ...]) -> Rows:
    """Check that every row has text in some fields.

    Args:
        rows: the rows.
        source: what they were read from, for the message.
        needed: the fields.

    Returns:
        The same rows.

    Raises:
        UserError: a field is missing, empty or no text; the message names the first such row and field.
    """
    for number, row in enumerate(rows, 1):
        for field in needed:
            problem = problem_of(row.get(field))
            if problem:
                raise UserError(
                    f"{source}, row {number}: {field!r} {problem}; every row needs {' and '.join(map(repr, needed))}"
                )
    return rows


def check_texts(rows: Rows, source: str, fields: tuple[str, ...]) -> Rows:
    """Check fields that a row may lack: where they are there, they hold text.

    Args:
        rows: the rows.
        source: what they were read from, for the message.
        fields: the fields.

    Returns:
        The same rows.

    Raises:
        UserError: a field holds something else; the message names the first such row and field.
    """
    for number, row in enumerate(rows, 1):
        for field in fields:
            value = row.get(field)
            problem = problem_of(value) if value is not None and not isinstance(value, str) else broken(value or "")
            if problem:
                raise UserError(f"{source}, row {number}: {field!r} {problem}; mend it, or leave it out")
    return rows


def load_rows(path: str, split: str, file: str, data: Any, needed: tuple[str, ...]) -> Rows:
    """The rows of the user's own file where one is named, else of a split, their columns named and checked.

    With `data.text_window` they are passages of raw text, in the column `text`.
    """
    if data.text_window:
        rows, source = (read_passages(file), file) if file else (load_split(path, split), f"{path} {split}")
        return check_rows(rows, source, (TEXT,))
    rows, source = (read_file(file), file) if file else (load_split(path, split), f"{path} {split}")
    rows = of_subject(rows, data.subject, source)
    return check_rows(name_columns(rows, source, data, needed), source, needed)


def load_forget(data: Any) -> Rows:
    """Forget rows: `question`, and `answer` where it is known.

    Answers are for evaluation only: training never sees them.

    Args:
        data: the section `data` of the settings.
    """
    rows = load_rows(data.path, data.forget, data.forget_file, data, ("question",))
    if data.cut:
        rows = cut(rows, data.cut)[0]
    return check_texts(rows, data.forget_file or f"{data.path} {data.forget}", ("answer", *PARAPHRASED))


def load_retain(data: Any) -> Rows:
    """Retain rows: `question` and `answer`; with `data.retain_answers` = "own", rows may lack the answer.

    Args:
        data: the section `data` of the settings.
    """
    needed = retain_fields(data)
    if data.cut:
        source = data.forget_file or f"{data.path} {data.forget}"
        rest = cut(load_rows(data.path, data.forget, data.forget_file, data, needed), data.cut)[1]
        return check_texts(rest, source, ("answer",))
    rows = load_rows(data.path, data.retain, data.retain_file, data, needed)
    return check_texts(rows, data.retain_file or f"{data.path} {data.retain}", ("answer",))


def retain_fields(data: Any) -> tuple[str, ...]:
    """What every retain row must have."""
    return ("question",) if data.retain_answers == "own" else ("question", "answer")


def is_answered(row: dict[str, Any]) -> bool:
    """Whether a row has an answer."""
    return bool((row.get("answer") or "").strip())


def check_sets(data: Any, forget: Rows, kept: dict[str, Rows]) -> str:
    """UserError where sets contradict each other, unless `data.allow_overlap` is set.

    Args:
        data: the section `data` of the settings.
        forget: rows to forget.
        kept: rows that must stay, by the set's name.

    Returns:
        A note on what is odd and no mistake; empty where nothing is.
    """
    if data.allow_overlap:
        return ""
    overlap.check_forget(forget)
    overlap.check_apart(forget, kept)
    return overlap.same_answers(forget, kept.get("retain", []))


def pick(rows: Rows, count: int, seed: int) -> Rows:
    """A seeded subset without replacement, in the file's order; all rows when `count` is 0 or not smaller."""
    if not count or count >= len(rows):
        return rows
    chosen = np.random.default_rng([seed, len(rows)]).choice(len(rows), count, replace=False)
    return [rows[i] for i in sorted(chosen)]


def paraphrases_of(rows: Rows) -> Rows:
    """A row for each paraphrased question. Where some rows have none, `forget_row` says whose paraphrase it is."""
    asked = [(i, r) for i, r in enumerate(rows) if (r.get("paraphrased_question") or "").strip()]
    return [
        {"question": r["paraphrased_question"], "answer": r.get("paraphrased_answer") or r.get("answer")}
        | ({} if len(asked) == len(rows) else {"forget_row": i})
        for i, r in asked
    ]


def load_unrelated(data: Any) -> dict[str, Rows]:
    """World facts and real authors, those of the two that data.path has, unless both files are the user's own, or raw
    text.
    """
    if (data.forget_file and data.retain_file) or data.text_window:
        return {}
    return {
        name: check_rows(load_split(data.path, name), f"{data.path} {name}", ("question", "answer"))
        for name in UNRELATED
        if has_split(data.path, name)
    }


def load_evaluation(data: Any, forget: Rows, retain: Rows, retain_rows: int, seed: int) -> dict[str, Rows]:
    """`evaluation_sets` of what data.path has beside forget and retain rows.

    Paraphrases come from the forget rows' own `paraphrased_question`, or from the split FORGET_perturbed.
    """
    paraphrased = forget
    if not data.forget_file and not data.cut and has_split(data.path, f"{data.forget}_perturbed"):
        split = f"{data.forget}_perturbed"
        paraphrased = check_texts(load_split(data.path, split), f"{data.path} {split}", ("answer", *PARAPHRASED))
    sets = {"forget": forget, "retain": retain} | load_unrelated(data)
    return evaluation_sets(data, sets, paraphrased, retain_rows, seed)


def evaluation_sets(
    data: Any, rows: dict[str, Rows], paraphrased: Rows, retain_rows: int, seed: int
) -> dict[str, Rows]:
    """The five sets of unlearn quality and utility; a set that the data does not have is left out.

    A paraphrased question is held against the paraphrased answer. Rows without one are left out.

    Args:
        data: the section `data` of the settings.
        rows: all rows of "forget" and "retain", and of those of `UNRELATED` that there are.
        paraphrased: forget rows with their paraphrases.
        retain_rows: how many of the retain rows; 0 = all.
        seed: which of them.

    Returns:
        {name of the set: rows}.

    Raises:
        UserError: a set is broken, or sets contradict each other (`check_sets`).
    """
    forget, paraphrases = rows["forget"], paraphrases_of(paraphrased)
    sets = {"forget": forget} | ({"forget_paraphrased": paraphrases} if paraphrases else {})
    sets |= {"retain": pick(rows["retain"], retain_rows, seed)}
    sets |= {name: rows[name] for name in UNRELATED if name in rows}
    kept = {name: rows[name] for name in ("retain", *UNRELATED) if name in rows}
    check_sets(data, forget, kept)
    if not data.allow_overlap:
        overlap.check_apart(paraphrases, kept)
    return sets
