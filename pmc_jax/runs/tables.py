"""Lines of results -> a table of the terminal."""

from rich.markup import escape
from rich.table import Table

from pmc_jax.evaluate.lines import Line


def rich_table(title: str, note: str, columns: dict[str, list[Line]]) -> Table:
    """A table with a column for each of several results that have the same lines, such as before and after.

    Args:
        title: heading.
        note: stands below the table, before the notes of the lines.
        columns: {heading: lines}.
    """
    caption = "\n".join([note, *line_notes(columns)]).strip()
    table = Table(title=escape(title), caption=escape(caption), caption_justify="left")
    for heading in ("", *columns, "rows"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    hint = ""
    for lines in zip(*columns.values()):
        first = lines[0]
        if first.hint and first.hint != hint:
            table.add_row(escape(f"{first.hint}:"))
        hint = first.hint
        name = escape(("  " if hint else "") + first.name)
        values = [f"{line.value_text()} {line.interval_text()}".strip() for line in lines]
        table.add_row(name, *values, "" if first.rows is None else str(first.rows))
    return table


def line_notes(columns: dict[str, list[Line]]) -> list[str]:
    """Each note once, after the names of the lines that have it."""
    names_by_note: dict[str, dict[str, None]] = {}
    for line in (line for lines in columns.values() for line in lines if line.note):
        names_by_note.setdefault(line.note, {})[line.name] = None
    return [f"{', '.join(names)}: {note}" for note, names in names_by_note.items()]


def text_table(title: str, note: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table of texts, the first column to the left. note: stands below."""
    table = Table(title=escape(title), caption=escape(note), caption_justify="left")
    for i, heading in enumerate(columns):
        table.add_column(escape(heading), justify="right" if i > 1 else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
