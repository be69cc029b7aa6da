"""How a run starts in its workdir: all processes have the same data and see the same folder."""

import time
from collections.abc import Callable
from typing import TypeVar

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.distributed import agreement, multihost
from pmc_jax.errors import UserError
from pmc_jax.settings import paths
from pmc_jax.tracking.workdir import Started, Workdir

T = TypeVar("T")
SAME = "give every host the same files"
PATIENCE = 20  # seconds until a file that one host made is seen by all


def read_data(
    work: Workdir, config: ConfigDict, read: Callable[[], T], hashes: Callable[[T], dict[str, str]]
) -> T | None:
    """Read the data on every process, and compare it.

    Args:
        work: the run's folder.
        config: settings with whole paths.
        read: gives the data.
        hashes: of it, by name.

    Returns:
        The data; None where it is gone, as what is to be forgotten may be, and the run in the folder is finished.

    Raises:
        UserError: the data cannot be read on some process, or is not the same on all.
    """
    try:
        return agreement.together(f"data ({work.path})", read, hashes, SAME)
    except UserError:
        if multihost.broadcast_from_primary(lambda: is_finished_with(work, config)):
            return None
        raise


def is_finished_with(work: Workdir, config: ConfigDict) -> bool:
    """Whether the folder holds a finished run that has read its data from these very places."""
    if work.frozen() is None or not work.result():
        return False
    there = work.settings()
    return all(there.get(name, settings.DEFAULTS[name]) == settings.lookup(config, name) for name in paths.DATA)


def claim(work: Workdir, started: Started) -> None:
    """`Workdir.claim` on the first process; all others must see it."""
    multihost.broadcast_from_primary(lambda: work.claim(started))
    agreement.together(f"workdir ({work.path})", lambda: check_seen(work), lambda seen: {"settings": seen}, SAME)


def check_seen(work: Workdir) -> dict:
    """The settings in the folder. UserError where this process does not see what the first one has made."""
    end = time.monotonic() + PATIENCE
    while (frozen := work.frozen()) is None:
        if time.monotonic() > end:
            raise UserError(
                f"--workdir={work.path}: is not there on this host; all hosts need the path of a folder that they share"
            )
        time.sleep(0.2)
    return {name: frozen[name] for name in ("verb", "settings", "data")}
