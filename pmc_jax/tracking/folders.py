"""Folders that are filled whole or not at all, and emptied only of what was written there.

A manifest in the folder names each file with its size and its SHA-256. Whoever fills the folder again may remove these
files, as long as they are as they were written, and nothing else. A kill in between leaves files that a manifest names.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pmc_jax
from pmc_jax.errors import UserError, telling_file_errors
from pmc_jax.tracking.files import PARTIAL, read_json, sync_folder, write_json
from pmc_jax.tracking.locks import Lock

MANIFEST = "pmc_jax_files.json"
LOCK = "lock"
SHOWN = 3  # names in an error message


def contents(folder: Path) -> dict[str, Path]:
    """{name below the folder: path} of all files, of links, and of folders that hold nothing; in order."""
    listed: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        below = contents(entry) if entry.is_dir() and not entry.is_symlink() else {}
        listed |= {f"{entry.name}/{name}": path for name, path in below.items()} or {entry.name: entry}
    return listed


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and hash of a file, as a manifest has them."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def write_manifest(folder: Path, files: dict[str, Path]) -> None:
    """Write down in a folder that files are ours. files: {name as it is, or will be, below the folder: path}."""
    about = "What pmc-jax wrote here. It replaces these files as long as they are as they were written, and no others."
    prints = {name: fingerprint(path) for name, path in files.items()}
    write_json(folder / MANIFEST, {"about": about, "version": pmc_jax.__version__, "files": prints})


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What is ours in a folder; {} where there is no manifest, or none that can be read."""
    try:
        value = read_json(folder / MANIFEST)
    except UserError:
        return {}
    files = value.get("files") if isinstance(value, dict) else None
    return files if isinstance(files, dict) else {}


def check_ours(folder: Path) -> None:
    """UserError unless the folder is absent, empty, or holds what was written there and nothing else.

    Reads every file that a manifest names.
    """
    with telling_file_errors(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{folder}: is a file, and a folder is to be written; choose another place")
        ours = read_manifest(folder)
        known = {MANIFEST, *(name.split("/")[0] for name in ours)}
        # Looked at first: what a user names by mistake, such as a home folder, may hold millions of files.
        strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
        check_none(folder, [name for name in strange if not is_partial(name)])
        files = {name: path for name, path in contents(folder).items() if name.split("/")[0] in known}
        kept = {name: path for name, path in files.items() if name != MANIFEST and not is_partial(name)}
        foreign = [name for name, path in kept.items() if name not in ours or path.is_symlink() or path.is_dir()]
        check_none(folder, foreign)
        changed = [name for name, path in kept.items() if fingerprint(path) != ours[name]]
        if changed:
            raise UserError(
                f"{folder}: {some(changed)} changed since pmc-jax wrote it; nothing was written: choose another folder"
            )


def check_none(folder: Path, foreign: list[str]) -> None:
    """UserError where a folder holds what is not ours."""
    if foreign:
        raise UserError(
            f"{folder}: holds what pmc-jax did not write: {some(foreign)}; nothing was written: choose another folder"
        )


def is_partial(name: str) -> bool:
    """Whether a name below a folder is that of what a writer was at when it was stopped."""
    return name.split("/")[0] == PARTIAL or ("/" not in name and name.startswith(f"{PARTIAL}-"))


def some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


class FolderWriter:
    """Fills a folder: `begin`, write into `partial`, `finish`. Used by one process.

    Attributes:
        folder: what is filled in the end.
        partial: where the files are written: inside the folder, which may be a mount or someone's working folder.
    """

    def __init__(self, folder: Path):
        self.folder, self.partial = folder, folder / PARTIAL
        self._lock = Lock(self.partial / LOCK)
        self._made = False

    def begin(self) -> None:
        """Make `partial`. What a stopped writer left there goes.

        Raises:
            UserError: the folder holds something else, another process is writing into it, or it cannot be made.
        """
        check_ours(self.folder)
        with telling_file_errors(self.folder):
            self._made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.partial.exists() and any(self.partial.iterdir()) and not (self.partial / LOCK).is_file():
                raise UserError(f"{self.partial}: holds what pmc-jax did not write; move it away")
            self.partial.mkdir(exist_ok=True)
            if not self._lock.hold():
                raise UserError(f"{self.folder}: another process is writing into it; wait for its end, or stop it")
            self._clear()

    def finish(self, last: tuple[str, ...] = ()) -> None:
        """Put what is in `partial` in the place of what was in the folder.

        last: names that go first and come last: without them nobody takes the folder for whole.
        """
        with telling_file_errors(self.folder):
            files = {name: path for name, path in contents(self.partial).items() if name != LOCK}
            for path in files.values():
                sync_file(path)
            write_manifest(self.partial, files)
            check_ours(self.folder)  # hours may have gone by
            old = {n: p for n, p in contents(self.folder).items() if n != MANIFEST and not is_partial(n)}
            for name in sorted(old, key=lambda name: (name not in last, name)):
                remove(old[name], self.folder)
            os.replace(self.partial / MANIFEST, self.folder / MANIFEST)
            for name in sorted(files, key=lambda name: (name in last, name)):
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(files[name], target)
            sync_folder(self.folder)
            self._end()

    def abandon(self) -> None:
        """Leave the folder as it was before `begin`."""
        with telling_file_errors(self.folder):
            if (self.partial / LOCK).exists():
                self._end()
            if self._made and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _clear(self) -> None:
        for entry in self.partial.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _end(self) -> None:
        self._clear()
        (self.partial / LOCK).unlink(missing_ok=True)
        self.partial.rmdir()
        self._lock.release()


def sync_file(file: Path) -> None:
    """Bring a file to the disk."""
    opened = os.open(file, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove(file: Path, base: Path) -> None:
    """Remove a file, and the folders below `base` that are empty then."""
    file.unlink()
    folder = file.parent
    while folder != base and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
