"""A run's folder: frozen settings, metrics, samples, answers, result. A run resumes in it; a run with other settings is
refused.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import filelock

from pmc_jax import config
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError

PACKAGES = ("pmc-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "rouge-score", "numpy")


def write_whole(file: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Only the first process of a run writes."""
    if multihost.is_primary():
        partial = file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)


def write_json(file: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSONL, whole or not at all."""
    write_whole(file, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def read_json(file: Path) -> Any | None:
    """The file's value; None when it is not there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a last line cut by a kill is left out, [] when there is no file."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [
        json.loads(line) for line in whole.split("\n") if line
    ]  # not splitlines: answers may hold other line separators


def data_hash(rows: Rows | dict[str, Any]) -> str:
    """SHA-256 of the content of rows, or of a log."""
    return hashlib.sha256(
        json.dumps(rows, sort_keys=True, ensure_ascii=False, default=str).encode(errors="surrogatepass")
    ).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    by_name = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            by_name[name] = "not installed as a package"
    return by_name


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`name: old -> new` for each setting or data hash that differs."""
    return [
        f"{k}: {old.get(k)!r} there, {new.get(k)!r} now"
        for k in sorted(old.keys() | new.keys())
        if old.get(k) != new.get(k)
    ]


class Workdir:
    """Paths and small files of one run."""

    def __init__(self, path: str):
        self.path = Path(path)
        self._lock: filelock.BaseFileLock | None = None

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_) -> None:
        if self._lock:
            self._lock.release()

    def frozen(self) -> dict[str, Any] | None:
        """The run's config.json, None when there is none. UserError for one of something else, as a checkpoint's."""
        try:
            content = read_json(self.path / "config.json")
        except ValueError:
            content = {}
        if content is not None and not (isinstance(content, dict) and {"verb", "settings", "data"} <= content.keys()):
            raise UserError(f"--workdir={self.path}: its config.json is not of a run of pmc-jax; choose another folder")
        return content

    def check(self, verb: str, settings: dict[str, Any], data: dict[str, str]) -> None:
        """UserError when the folder holds something else than a run with these very settings and data. Writes nothing.

        The mesh may be another: a run goes on with other devices than it was begun with.
        """
        old = self.frozen()
        if old is None:
            # A run that was killed in its very first moment leaves only these.
            if self.path.exists() and (
                not self.path.is_dir() or any(p.name not in ("lock", "config.partial") for p in self.path.iterdir())
            ):
                raise UserError(f"--workdir={self.path}: not empty and not a run of pmc-jax; choose another folder")
            return
        # A run of an earlier version has settings of other names, and lacks those that are newer.
        before = {name: config.DEFAULTS[name] for name in settings if name in config.DEFAULTS}
        before |= config.current_names(old["settings"])
        there, now = ({k: v for k, v in s.items() if not k.startswith("mesh.")} for s in (before, settings))
        differ = differences({"verb": old["verb"]} | there, {"verb": verb} | now) + differences(old["data"], data)
        if differ:
            raise UserError(
                f"--workdir={self.path} holds a run with other settings; choose another folder or undo: "
                f"{'; '.join(differ)}"
            )

    def finished(self, verb: str, settings: dict[str, Any], data: dict[str, str]) -> dict[str, Any] | None:
        """The result of this very run where it is finished, None where there is something to do. UserError as by
        `check`.
        """
        self.check(verb, settings, data)
        return self.result()

    def hold(self) -> None:
        """Keep other starts out until the context, or the process, ends."""
        self._lock = filelock.FileLock(self.path / "lock")
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise UserError(
                f"--workdir={self.path}: another process is running in it; wait for its end, or stop it"
            ) from None

    def claim(self, verb: str, settings: dict[str, Any], data: dict[str, str]) -> None:
        """Make the folder, `hold` it, and freeze the settings in config.json; those of a run that goes on are left as
        they are.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={self.path}: cannot be made: {error.strerror}") from None
        self.hold()
        if not (self.path / "config.json").exists():
            write_json(
                self.path / "config.json", {"verb": verb, "settings": settings, "data": data, "versions": versions()}
            )

    def file(self, name: str) -> Path:
        """A file's path; its folder is made."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run."""
        return read_json(self.path / "result.json")

    def drop_metrics_from(self, number: int) -> None:
        """Forget lines of rounds that are about to be run again after a kill."""
        file = self.file("metrics.jsonl")
        write_lines(file, [r for r in read_lines(file) if r["round"] < number])

    def add_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append lines to metrics.jsonl, on the first process."""
        if multihost.is_primary():
            with self.file("metrics.jsonl").open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(r) + "\n" for r in rows))
