"""Markdown for the pages that benchmarks write."""


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A table, without a line's end at its end."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [headings, ["---"] * len(headings), *rows])
