"""Paths as users write them, made whole: `~` and variables of the environment, and the folder that a run started in."""

import os
import re
from pathlib import Path

from pmc_jax.errors import UserError

# Settings that may name a file or a folder; those of data and of benchmarks may name a data set, the others a
# checkpoint, by a hub id.
BENCHMARKS = ("evaluate.wmdp", "evaluate.mmlu", "evaluate.arc", "evaluate.choices")
DATA = ("data.path", "data.forget_file", "data.retain_file", *BENCHMARKS)
CHECKPOINTS = ("model.path", "evaluate.retain_model", "evaluate.original_model")
PATHS = (*DATA, *CHECKPOINTS)
LONGEST_NAME = 255  # bytes, on every file system in use
SECRET = re.compile(r"token|secret|password|passwd|credential|(^|_)key($|_)", re.IGNORECASE)


def expand(path: str | Path) -> str:
    """The path with `~` and `$NAME` replaced; one that exists as it is written stays.

    Raises:
        UserError: there is no such user or variable, or the variable looks like a secret, which would be written down
            with the settings.
    """
    path = os.fspath(path)
    if "\0" in path:
        raise UserError(f"{path!r}: a path has no NUL in it")
    if any(len(name.encode(errors="surrogatepass")) > LONGEST_NAME for name in Path(path).parts):
        raise UserError(f"{path[:40]}...: the name of a file has {LONGEST_NAME} bytes at most; is this a path?")
    if os.path.lexists(path):
        return path
    for name in re.findall(r"\$(\w+)|\$\{(\w+)\}", path):
        name = "".join(name)
        if name not in os.environ:
            raise UserError(f"{path}: the variable {name} is not set")
        if SECRET.search(name):
            raise UserError(f"{path}: {name} looks like a secret, and paths are written into config.json")
    whole = os.path.expanduser(os.path.expandvars(path))
    if whole.startswith("~"):
        raise UserError(f"{path}: {whole.split('/')[0]} is no user of this machine")
    return whole


def absolute(path: str) -> str:
    """A setting's path that names something here, from the root on; hub ids and what is not there stay as they are."""
    whole = expand(path)
    return os.path.abspath(whole) if whole and os.path.exists(whole) else whole


def beside(path: str, folder: str | Path) -> str:
    """The way from a run's folder to an absolute path. It holds also when both are moved together."""
    return os.path.relpath(path, os.path.realpath(folder))


def relocate(name: str, path: str, folder: Path, way: str | None) -> str:
    """Where what a run named lies today.

    Args:
        name: the setting.
        path: its value.
        folder: of the run.
        way: `beside` at the time of the run; None for runs of earlier versions, which kept paths as they were given.

    Returns:
        The first that exists: the path itself, the way from the run's folder, the path from the folder that holds the
        run's; else the path itself.
    """
    if not path or name not in PATHS:
        return path
    tried = [path] + ([os.path.join(os.path.realpath(folder), way)] if way else [])
    tried += [] if os.path.isabs(path) else [os.path.join(os.path.realpath(folder), os.pardir, path)]
    return next((os.path.abspath(place) for place in tried if os.path.exists(place)), path)
