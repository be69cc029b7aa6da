"""Lines of results -> a table of the terminal."""

from rich.table import Table

from pmc_jax.evaluate.lines import Line


def rich_table(title: str, note: str, columns: dict[str, list[Line]]) -> Table:
    """A table with a column for each of several results that have the same lines, such as before and after.

    Args:
        title: heading.
        note: stands below the table.
        columns: {heading: lines}.
    """
    table = Table(title=title, caption=note, caption_justify="left")
    with_notes = any(line.note for lines in columns.values() for line in lines)
    for heading in ("", *columns, "rows", *(["note"] if with_notes else [])):
        table.add_column(heading, justify="right" if heading in (*columns, "rows") else "left", overflow="fold")
    for lines in zip(*columns.values()):
        first = lines[0]
        name = f"{first.name} ({first.hint})" if first.hint else first.name
        values = [f"{line.value_text()} {line.interval_text()}".strip() for line in lines]
        table.add_row(name, *values, "" if first.rows is None else str(first.rows), *([first.note] * with_notes))
    return table
