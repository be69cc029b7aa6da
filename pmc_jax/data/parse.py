"""Text of a file -> rows: JSON, JSON lines, or a table with commas, semicolons, tabs or bars between its cells."""

import csv
import io
import json
import re
from typing import Any

from pmc_jax.errors import UserError, few

COMMENTED = re.compile(r"\s*((#|//)[^\n]*\n\s*)+[\[{]")  # JSON below comments
LINE_END = re.compile(r"\r\n|\r|\n")
MISSING = ("nan", "NaN", "<NA>", "#N/A")  # cells in which programs write that there is no value
RULE = re.compile(r"\s*:?-+:?\s*")  # a cell of the line below the header of a Markdown table
DELIMITERS = (",", "\t", ";", "|")
Rows = list[dict[str, Any]]


def parse_text(text: str, source: str) -> Rows:
    """The rows of a text, by what it begins with.

    Args:
        text: what the file holds.
        source: the file, for messages.

    Raises:
        UserError: it is neither JSON nor a table, or damaged; the message names the line or the row.
    """
    start = text.lstrip()[:1]
    if not start:
        raise UserError(f"{source}: has no rows")
    if start in "[{" or COMMENTED.match(text):
        return without_nan(rows_of(parse_json(text, source), source))
    return parse_table(text, source)


def without_nan(rows: Rows) -> Rows:
    """The rows where NaN, as pandas writes what is missing, is missing."""
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def parse_json(text: str, source: str) -> list[Any]:
    """The values of a JSON text: one, or one after the other as in JSON lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    comment = next((number for number, line in numbered if line.lstrip().startswith(("#", "//"))), 0)
    if comment:
        raise UserError(f"{source}, line {comment}: a comment, and JSON has none; remove the line")
    try:
        _load(numbered[0][1])
    except ValueError:  # a value that goes over several lines
        return _read_values("\n".join(lines), source, numbered[-1][0])
    values = []
    for number, line in numbered:
        try:
            values.append(_load(line))
        except ValueError as error:
            raise UserError(f"{source}, line {number}: not valid JSON: {_reason(error)}") from None
    return values


def _read_values(text: str, source: str, last: int) -> list[Any]:
    decoder, values, place = json.JSONDecoder(object_pairs_hook=_object), [], 0
    end = len(text.rstrip())
    while place < end:
        place += len(text[place:]) - len(text[place:].lstrip())
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            line = min(getattr(error, "lineno", last), last)
            raise UserError(f"{source}, line {line}: cannot be read as JSON: {_reason(error)}") from None
        values.append(value)
    return values


def _load(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return value


def _reason(error: Exception) -> str:
    return getattr(error, "msg", "") or str(error)


def rows_of(values: list[Any], source: str) -> Rows:
    """The rows in the JSON values of a file: a list of objects, one object a line, or one object that holds a list.

    Raises:
        UserError: they are none; the message says what would be.
    """
    rows = values
    if len(values) == 1:
        rows = values[0] if isinstance(values[0], list) else _unwrap(values[0], source)
    other = next(((n, row) for n, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if other:
        number, row = other
        raise UserError(
            f"{source}: must hold a list of objects with the key 'question', and row {number} is a "
            f'{type(row).__name__}; write each row as {{"question": ..., "answer": ...}}'
        )
    if not rows:
        raise UserError(f"{source}: has no rows")
    return rows


def _unwrap(value: dict[str, Any], source: str) -> Rows:
    """The rows in one object: of its only list of objects, of its columns, or the object itself."""
    if isinstance(value.get("question"), str):
        return [value]
    inner = next(iter(value.values()), None)
    if len(value) == 1 and isinstance(inner, dict) and any(isinstance(v, list) for v in inner.values()):
        return _unwrap(inner, source)
    tables = {k: v for k, v in value.items() if isinstance(v, list) and (not v or all(isinstance(x, dict) for x in v))}
    if any({"role", "content"} <= row.keys() or {"from", "value"} <= row.keys() for v in tables.values() for row in v):
        return [value]  # one conversation
    if len(tables) == 1:
        return next(iter(tables.values()))
    if tables:
        raise UserError(f"{source}: an object with several lists of rows ({few(tables)}); give a file of one of them")
    columns = list(value.values())
    if columns and all(isinstance(c, dict) for c in columns):  # as pandas writes a frame
        if all(name.isdigit() for name in value):
            return columns
        if all(c.keys() == columns[0].keys() for c in columns) and all(key.isdigit() for key in columns[0]):
            return [{name: column[key] for name, column in value.items()} for key in columns[0]]
    if columns and all(isinstance(c, list) for c in columns):
        if len({len(c) for c in columns}) > 1:
            raise UserError(f"{source}: its columns ({few(value)}) are not of one length; a row needs a value of each")
        return [dict(zip(value, cells)) for cells in zip(*columns)]
    if any(isinstance(c, str) for c in columns):
        return [value]
    raise UserError(
        f"{source}: an object with the keys {few(value)}; it must hold a list of objects with the key 'question'"
    )


def parse_table(text: str, source: str) -> Rows:
    """The rows of a table with a header; what stands between cells is what the header is cut by most often."""
    first, rest = (*LINE_END.split(text, maxsplit=1), "")[:2]
    if first.strip().lower()[:4] == "sep=" and len(first.strip()) == 5:  # as spreadsheets write it
        delimiter, text = first.strip()[4], rest
    else:
        delimiter = max(DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        records = [record for record in reader if any(cell.strip() for cell in record)]
    except csv.Error as error:
        hint = "; put texts in double quotes, and a quote inside them twice"
        raise UserError(
            f"{source}, line {reader.line_num}: cannot be read as a table ({delimiter!r} between cells): {error}{hint}"
        ) from None
    header, *records = [[cell.strip() for cell in records[0]], *records[1:]]
    if delimiter == "|" and records and all(RULE.fullmatch(cell) for cell in records[0] if cell):
        records = [[cell.strip() for cell in record] for record in records[1:]]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{source}: the column {twice[0]!r} is there twice; rename or remove one")
    if not records:
        raise UserError(f"{source}: has no rows below the header {few(header)!r}")
    return [_table_row(header, record, f"{source}, row {number}") for number, record in enumerate(records, 1)]


def _table_row(header: list[str], record: list[str], source: str) -> dict[str, Any]:
    if any(cell.strip() for cell in record[len(header) :]):
        raise UserError(f"{source}: has more values than there are columns; put texts with commas in quotes")
    return {name: "" if cell in MISSING else cell for name, cell in zip(header, record) if name}
