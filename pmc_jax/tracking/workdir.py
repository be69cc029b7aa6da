"""A run's folder: frozen settings, metrics, samples, answers, result. A run resumes in it; a run with other settings is
refused.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax import config
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError, telling_file_errors
from pmc_jax.settings import paths
from pmc_jax.tracking.files import PARTIAL, read_json, split_lines, write_json, write_lines
from pmc_jax.tracking.fingerprint import checkpoint_fingerprint
from pmc_jax.tracking.locks import Lock

FIRST = ("lock", "config.partial")  # what a kill in the very first moment leaves; the second of an earlier version
FREE = ("mesh.", "rounds.")  # settings that say where a run is and what it saves, not what it computes
PACKAGES = ("pmc-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "rouge-score", "numpy")


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


def is_of_a_run(content: Any) -> bool:
    """Whether the value of a config.json is what a run writes."""
    if not isinstance(content, dict) or not {"verb", "settings", "data"} <= content.keys():
        return False
    parts = [content[name] for name in ("settings", "data")] + [content.get(n, {}) for n in ("checkpoints", "beside")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(content["settings"].get(name, ""), str | None) for name in paths.PATHS)


class Started(NamedTuple):
    """What a run is started with.

    Attributes:
        verb: what it does.
        settings: all of them, flat, with whole paths.
        data: {set: hash of its content}; None = it cannot be read any more, and is not compared.
        checkpoints: {setting: fingerprint} of the checkpoints on this machine.
    """

    verb: str
    settings: dict[str, Any]
    data: dict[str, str] | None
    checkpoints: dict[str, str]


def started_with(verb: str, settings: ConfigDict, data: dict[str, str] | None) -> Started:
    """What a run is started with, from its settings and the hashes of its data."""
    flat = config.to_flat(config.with_whole_paths(settings))
    prints = {name: checkpoint_fingerprint(flat[name]) for name in paths.CHECKPOINTS}
    return Started(verb, flat, data, {name: value for name, value in prints.items() if value})


class Workdir:
    """Paths and small files of one run."""

    def __init__(self, path: str):
        self.path = Path(paths.expand(path))
        self._lock = Lock(self.path / "lock")

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    def frozen(self) -> dict[str, Any] | None:
        """The run's config.json, None when there is none. UserError for one of something else, as a checkpoint's."""
        content = read_json(self.path / "config.json")
        if content is not None and not is_of_a_run(content):
            raise UserError(f"--workdir={self.path}: its config.json is not of a run of pmc-jax; choose another folder")
        return content

    def settings(self) -> dict[str, Any]:
        """The settings of the run, by the names of today, with paths as they are today."""
        frozen = self.frozen()
        ways = frozen.get("beside", {})
        named = config.current_names(frozen["settings"]).items()
        return {name: paths.relocate(name, value, self.path, ways.get(name)) for name, value in named}

    def check(self, started: "Started") -> None:
        """UserError when the folder holds something else than a run with these very settings and data. Writes nothing.

        The mesh may be another, and so may the rounds that are saved: a run goes on with other devices than it was
        begun with, and neither changes what it computes. Data and checkpoints may lie elsewhere: what they hold counts,
        not where.
        """
        old = self.frozen()
        if old is None:
            with telling_file_errors(self.path):
                # A run that was killed in its very first moment leaves only these.
                is_free = not self.path.exists() or (
                    self.path.is_dir() and all(p.name in FIRST or is_leftover(p) for p in self.path.iterdir())
                )
            if not is_free:
                raise UserError(f"--workdir={self.path}: not empty and not a run of pmc-jax; choose another folder")
            return
        # A run of an earlier version lacks settings that are newer.
        before = {name: config.DEFAULTS[name] for name in started.settings if name in config.DEFAULTS}
        there = {"verb": old["verb"]} | before | self.settings()
        now = {"verb": started.verb} | started.settings
        known = old.get("checkpoints", {})
        by_content = {name for name in known.keys() & started.checkpoints.keys() if there.get(name) and now.get(name)}
        for name in [n for n in there | now if n.startswith(FREE) or n in paths.DATA or n in by_content]:
            there.pop(name, None)
            now.pop(name, None)
        differ = differences(there, now)
        differ += [
            f"{name}: another checkpoint than the run began with"
            for name in sorted(by_content)
            if known[name] != started.checkpoints[name]
        ]
        if started.data is not None:
            differ += differences(old["data"], started.data)
        if differ:
            raise UserError(
                f"--workdir={self.path} holds a run with other settings; choose another folder or undo: "
                f"{'; '.join(differ)}"
            )

    def finished(self, started: "Started") -> dict[str, Any] | None:
        """The result of this very run where it is finished, None where there is something to do. UserError as by
        `check`.
        """
        self.check(started)
        return self.result()

    def hold(self) -> None:
        """Keep other starts out until the context, or the process, ends."""
        if not self._lock.hold():
            raise UserError(f"--workdir={self.path}: another process is running in it; wait for its end, or stop it")

    def claim(self, started: "Started") -> None:
        """Make the folder, for the user alone, `hold` it, and freeze the settings in config.json; those of a run that
        goes on are left as they are.
        """
        with telling_file_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.hold()
        if not (self.path / "config.json").exists():
            with telling_file_errors(self.path):
                self.path.chmod(0o700)  # it holds what is to be forgotten
            named = {name: started.settings.get(name) for name in paths.PATHS}
            ways = {
                name: paths.beside(path, self.path) for name, path in named.items() if path and Path(path).is_absolute()
            }
            write_json(
                self.path / "config.json",
                {
                    "verb": started.verb,
                    "settings": started.settings,
                    "data": started.data,
                    "checkpoints": started.checkpoints,
                    "beside": ways,
                    "versions": versions(),
                },
            )
        self.clear_leftovers()

    def clear_leftovers(self) -> None:
        """Remove what a kill left half-written. To be called while the folder is held."""
        with telling_file_errors(self.path):
            for folder in (self.path, *(self.path / name for name in ("samples", "answers", "parts"))):
                for file in filter(is_leftover, folder.iterdir() if folder.is_dir() else ()):
                    file.unlink()

    def file(self, name: str) -> Path:
        """A file's path; its folder is made."""
        file = self.path / name
        with telling_file_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run."""
        return read_json(self.path / "result.json")

    def drop_metrics_from(self, number: int) -> None:
        """Forget lines of rounds that are about to be run again after a kill, and lines that it damaged."""
        file = self.file("metrics.jsonl")
        if multihost.is_primary():
            rows, damaged = split_lines(file)
            if damaged:
                print(f"pmc-jax: {file}: left out {len(damaged)} damaged lines", file=sys.stderr)
            write_lines(file, [r for r in rows if r["round"] < number])

    def add_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append lines to metrics.jsonl, on the first process."""
        if multihost.is_primary():
            file = self.file("metrics.jsonl")
            with telling_file_errors(file), file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(r) + "\n" for r in rows))


def is_leftover(file: Path) -> bool:
    """Whether a file is one that a kill left half-written."""
    return file.name.startswith(f"{PARTIAL}-") and file.is_file()
