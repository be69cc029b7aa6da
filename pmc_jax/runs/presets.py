"""Presets: settings files that ship with the package, found by name."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from pmc_jax.errors import UserError, first_line
from pmc_jax.settings.paths import expand


def preset_folder() -> Path:
    """Where the presets lie: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(file.stem for file in preset_folder().glob("*.py") if file.stem != "__init__")


def find_preset(name: str) -> str:
    """The file of a preset.

    Args:
        name: the path of a settings file, or a preset's name: "tofu", "tofu.py" and "configs/tofu.py" are the same. A
            word behind a colon, as in "rivals:npo", goes to the file's `get_config`.

    Returns:
        The path of the file, with that word.

    Raises:
        UserError: there is neither such a file nor such a preset; the message lists the presets.
    """
    if Path(expand(name)).is_file():
        return expand(name)
    file, colon, word = name.partition(":")
    if colon and Path(expand(file)).is_file():
        return expand(file) + colon + word
    stem = file.removesuffix(".py").removeprefix("configs/")
    if stem in preset_names():
        return f"{preset_folder() / stem}.py{colon}{word}"
    raise UserError(
        f"--config={name}: no such file and no such preset; choose one of {', '.join(preset_names())}, or the path of "
        "a file of your own"
    )


def load_preset(name: str) -> ConfigDict:
    """The settings of a preset, as `find_preset` names it.

    Raises:
        UserError: there is no such preset, or it does not know the word behind the colon.
    """
    file, _, word = find_preset(name).partition(".py:")
    file = file if file.endswith(".py") else f"{file}.py"
    try:
        return runpy.run_path(file)["get_config"](*filter(None, [word]))
    except ValueError as error:
        raise UserError(first_line(error)) from None
