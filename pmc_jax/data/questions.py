"""Forget, retain and evaluation rows: TOFU from the hub or a local folder, or files of the user's own."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from pmc_jax.errors import UserError, first_line

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PARAPHRASED = ("paraphrased_question", "paraphrased_answer")
Rows = list[dict[str, Any]]


def read_file(path: str | Path) -> Rows:
    """All rows of a JSONL, JSON (a list of objects), CSV or parquet file.

    Raises:
        UserError: the file is absent, empty, of another kind, or cannot be read; the message names file and row.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; known: {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".jsonl":
            rows = _read_jsonl(path)
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        else:
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
    except UserError:
        raise
    except (ValueError, OSError, csv.Error) as error:  # json, unicode and arrow errors are all ValueErrors or OSErrors
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise UserError(f"{path}: must hold a list of objects with the key 'question'")
    if not rows:
        raise UserError(f"{path}: has no rows")
    wide = next((number for number, row in enumerate(rows, 1) if None in row), None)
    if wide:
        raise UserError(f"{path}, row {wide}: has more values than there are columns; put texts with commas in quotes")
    return rows


def _read_jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON: {error.msg}") from None
    return rows


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
            value = row.get(field)
            if not isinstance(value, str) or not value.strip():
                problem = "is empty" if isinstance(value, str) else f"is a {type(value).__name__}, not text"
                problem = "is missing" if value is None else problem
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
            if not isinstance(row.get(field), str | None):
                raise UserError(f"{source}, row {number}: {field!r} is a {type(row[field]).__name__}, not text")
    return rows


def load_split(path: str, split: str) -> Rows:
    """The rows of one TOFU split.

    Args:
        path: a folder of SPLIT.jsonl (or .json, .csv, .parquet), or the hub id of a data set.
        split: the name of the file, or of the data set's config, such as "forget10".

    Raises:
        UserError: the split is not there; the message names those that are.
    """
    folder = Path(path)
    if folder.is_dir():
        for suffix in SUFFIXES:
            if (folder / f"{split}{suffix}").exists():
                return read_file(folder / f"{split}{suffix}")
        here = sorted({p.stem for p in folder.iterdir() if p.suffix in SUFFIXES})
        raise UserError(f"{path}: no split {split!r}; it has: {', '.join(here) or 'no data files'}")
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"data.path={path!r}: no such folder, and not a hub id (owner/name)")
    import datasets

    try:
        return datasets.load_dataset(path, split, split="train").to_list()
    except Exception as error:  # the hub client raises many kinds; each means that the split could not be had
        reason = first_line(error)
        raise UserError(
            f"data.path={path!r}, split {split!r}: no such folder, and the hub did not give it: {reason}"
        ) from None


def has_split(path: str, split: str) -> bool:
    """Whether the data has an optional split."""
    if Path(path).is_dir():
        return any((Path(path) / f"{split}{suffix}").exists() for suffix in SUFFIXES)
    import datasets

    try:
        return split in datasets.get_dataset_config_names(path)
    except Exception as error:  # as in load_split
        raise UserError(
            f"data.path={path!r}: no such folder, and the hub did not give it: {type(error).__name__}"
        ) from None


def load_forget(data: Any) -> Rows:
    """Forget rows: `question`, and `answer` where it is known.

    Answers are for evaluation only: training never sees them.

    Args:
        data: the section `data` of the settings.
    """
    rows = read_file(data.forget_file) if data.forget_file else load_split(data.path, data.forget)
    source = data.forget_file or f"{data.path} {data.forget}"
    return check_texts(check_rows(rows, source, ("question",)), source, ("answer", *PARAPHRASED))


def load_retain(data: Any) -> Rows:
    """Retain rows: `question` and `answer`."""
    rows = read_file(data.retain_file) if data.retain_file else load_split(data.path, data.retain)
    return check_rows(rows, data.retain_file or f"{data.path} {data.retain}", ("question", "answer"))


def pick(rows: Rows, count: int, seed: int) -> Rows:
    """A seeded subset without replacement, in the file's order; all rows when `count` is 0 or not smaller."""
    if not count or count >= len(rows):
        return rows
    chosen = np.random.default_rng([seed, len(rows)]).choice(len(rows), count, replace=False)
    return [rows[i] for i in sorted(chosen)]


def load_evaluation(data: Any, forget: Rows, retain: Rows, retain_rows: int, seed: int) -> dict[str, Rows]:
    """The five sets of unlearn quality and utility; a set that the data does not have is left out.

    A paraphrased question is held against the paraphrased answer. Paraphrases come from the forget rows' own
    `paraphrased_question`, or from the split FORGET_perturbed. World facts and real authors come from data.path, unless
    both files are the user's own.

    Args:
        data: the section `data` of the settings.
        forget: the forget rows.
        retain: the retain rows.
        retain_rows: how many of the retain rows; 0 = all.
        seed: which of them.

    Returns:
        {name of the set: rows}.
    """
    sets = {"forget": forget}
    paraphrased = forget
    if not data.forget_file and has_split(data.path, f"{data.forget}_perturbed"):
        split = f"{data.forget}_perturbed"
        paraphrased = check_texts(load_split(data.path, split), f"{data.path} {split}", ("answer", *PARAPHRASED))
    if all(r.get("paraphrased_question") for r in paraphrased):
        sets["forget_paraphrased"] = [
            {"question": r["paraphrased_question"], "answer": r.get("paraphrased_answer") or r.get("answer")}
            for r in paraphrased
        ]
    sets["retain"] = pick(retain, retain_rows, seed)
    if not (data.forget_file and data.retain_file):
        for name in ("world_facts", "real_authors"):
            if has_split(data.path, name):
                sets[name] = check_rows(load_split(data.path, name), f"{data.path} {name}", ("question", "answer"))
    return sets
