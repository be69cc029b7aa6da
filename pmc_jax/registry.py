"""Names in settings -> what they stand for: an entry of a table, or `module:attribute` of the user's own."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from pmc_jax.errors import UserError


def resolve(setting: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of `table` called `name`, or the attribute that `name` points to in a module of the user's own.

    A module is looked for as Python does, and in the working folder.

    Args:
        setting: the setting that holds the name, for error messages, such as "pmc.reward".
        name: a key of `table`, or "module:attribute", such as "my_rewards:digits".
        table: the project's own entries by name.

    Returns:
        The entry, or the attribute.

    Raises:
        UserError: the name is in neither place; the message names the setting and what would be right.
    """
    if not isinstance(name, str):
        raise UserError(f"{setting}: a {type(name).__name__}; give a name as text")
    if name in table:
        return table[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(map(repr, table))
        raise UserError(f"{setting}={name!r}: choose one of {known}, or name your own as 'module:attribute'")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's own module raises while it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{setting}={name!r}: the module {module_name!r} cannot be imported: {reason}") from None
    if not hasattr(module, attribute):
        raise UserError(f"{setting}={name!r}: the module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)
