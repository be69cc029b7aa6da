"""What callers of the Python surface give: lists of texts and of rows, or one line on what would be right."""

from collections.abc import Mapping
from typing import Any

from pmc_jax.data.parse import Rows
from pmc_jax.data.questions import problem_of
from pmc_jax.errors import UserError


def listed(value: Any, name: str, wanted: str, remedy: str) -> list[Any]:
    """The items of a list, a tuple, an array, a column or a generator.

    Args:
        value: what was given.
        name: of the argument.
        wanted: what it should be, such as "a list of texts".
        remedy: what to write instead of a text or a DataFrame.

    Raises:
        UserError: it is a text, a dict, a DataFrame, or nothing that has items.
    """
    if isinstance(value, str | bytes):
        text = value if isinstance(value, str) else value.decode(errors="replace")
        raise UserError(f"{name}: a single text; give {wanted}, such as [{text[:30]!r}]")
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        raise UserError(f"{name}: a DataFrame; give {wanted}: {remedy}")
    if isinstance(value, Mapping) or value is None:
        raise UserError(f"{name}: {'a dict' if value is not None else 'None'}; give {wanted}")
    try:
        return list(value)
    except TypeError:
        raise UserError(f"{name}: a {type(value).__name__}; give {wanted}") from None


def texts(value: Any, name: str, may_be_blank: bool = False) -> list[str]:
    """A list of texts.

    Raises:
        UserError: it is none, or an item is no text, or blank.
    """
    items = listed(value, name, "a list of texts", 'df["question"].tolist()')
    for number, item in enumerate(items, 1):
        if not isinstance(item, str):
            raise UserError(f"{name}: item {number} is a {type(item).__name__}, not text; give a list of texts")
        problem = "" if may_be_blank else problem_of(item)
        if problem:
            raise UserError(f"{name}: item {number} {problem}; mend it, or leave it out")
    return [str(item) for item in items]


def rows(value: Any, name: str, text_key: str = "") -> Rows:
    """A list of dicts; text_key: a text stands for {text_key: text}.

    Raises:
        UserError: it is none, or a row is no dict.
    """
    items = listed(value, name, "a list of dicts with 'question'", 'df.to_dict("records")')
    made = []
    for number, item in enumerate(items, 1):
        if isinstance(item, str) and text_key:
            item = {text_key: str(item)}
        if not isinstance(item, Mapping):
            raise UserError(
                f"{name}, row {number}: a {type(item).__name__}; each row must be a dict with 'question' and 'answer'"
            )
        made.append(dict(item))
    return made
