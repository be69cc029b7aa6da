"""What a setting is, and the limits that several of them share."""

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One setting: dotted name, default, what it means, and (limit, test) that its value must pass."""

    name: str
    default: Any
    meaning: str
    limit: str = ""
    test: Any = None


def names_in(text: str) -> list[str]:
    """The names in "a,b", without blanks."""
    return [name.strip() for name in text.split(",") if name.strip()]


def one_of(*choices: str) -> tuple[str, Any]:
    """Limit and test of a setting with a few allowed values."""
    return "one of " + ", ".join(repr(c) for c in choices), lambda v: v in choices


def is_cut(text: str) -> bool:
    """Whether a text is such as last:10 or spread:2.5."""
    kind, _, percent = text.partition(":")
    return kind in ("last", "spread") and percent.replace(".", "", 1).isdecimal() and 0 < float(percent) < 100


AT_LEAST_0 = ("0 or more", lambda v: v >= 0)
AT_LEAST_1 = ("1 or more", lambda v: v >= 1)
SHARE = ("0 to 1", lambda v: 0 <= v <= 1)
ABOVE_0 = ("more than 0", lambda v: v > 0)
