"""Splits of a data set: files of a folder, folders as the hub and `save_to_disk` lay them out, or the hub itself."""

import json
import re
from pathlib import Path

from pmc_jax.data.files import SUFFIXES, read_file
from pmc_jax.data.hub import hub_problem
from pmc_jax.data.parse import Rows
from pmc_jax.errors import UserError, few
from pmc_jax.settings.paths import expand

STATE = "state.json"  # of a data set that `datasets` saved
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


def stem(file: Path) -> str:
    """A data file's name without suffixes and shard number; empty for any other file."""
    suffix = max((s for s in SUFFIXES if file.name.lower().endswith(s)), key=len, default="")
    name = file.name[: -len(suffix)] if suffix and file.is_file() else ""
    shard = SHARD.fullmatch(name)
    return shard.group(1) if shard else name


def data_files(folder: Path) -> dict[str, list[Path]]:
    """{stem: its files in order} of the data files of a folder."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if stem(file) and file.name not in (STATE, "dataset_info.json", "dataset_dict.json"):
            files.setdefault(stem(file), []).append(file)
    return files


def find_split(folder: Path, split: str) -> list[Path]:
    """The files of a split: SPLIT.jsonl or another kind, shards of it (also in data/), or a folder called SPLIT.

    CONFIG/SPLIT, as data sets with several configs have it, is SPLIT in the folder CONFIG; where there is no such
    folder, the files of CONFIG.

    Returns:
        The files whose rows follow each other; [] where there are none.

    Raises:
        UserError: there are several, and nothing says which.
    """
    config, _, name = split.rpartition("/")
    if config:
        return find_split(folder / config, name) if (folder / config).is_dir() else find_split(folder, config)
    whole = data_files(folder).get(split, []) or data_files(folder / "data").get(split, [])
    if len({file.name for file in whole if not SHARD.search(file.name)}) > 1:
        raise UserError(f"{folder}: {few(f.name for f in whole)} are all split {split!r}; keep one of them")
    inside = folder / split
    if whole or not split or not inside.is_dir():
        return whole
    if (inside / STATE).exists():
        return _saved_files(inside)
    below = data_files(inside)
    chosen = below.get("train") or (next(iter(below.values())) if len(below) == 1 else [])
    if below and not chosen:
        raise UserError(f"{inside}: holds the splits {few(below)}, and none is called train; keep one of them")
    return chosen


def _saved_files(folder: Path) -> list[Path]:
    """The arrow files of a data set that `save_to_disk` wrote."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"{folder / STATE}: does not name the data set's files; save the data set again") from None
    if any("/" in name or "\\" in name for name in names):
        raise UserError(f"{folder / STATE}: names a file outside its folder; save the data set again")
    return [folder / name for name in names]


def split_names(folder: Path) -> list[str]:
    """The names that `find_split` would find."""
    inside = {f.name for f in folder.iterdir() if f.is_dir() and ((f / STATE).exists() or data_files(f))} - {"data"}
    return sorted({*data_files(folder), *data_files(folder / "data"), *inside})


def check_path(path: str, setting: str = "data.path") -> None:
    """UserError that names the setting for what is no folder and cannot be a hub id."""
    if not path:
        raise UserError(f"{setting} is empty: give a hub id or a folder, as --config.data.path=locuslab/TOFU")
    if Path(path).is_file():
        instead = "; give it as data.forget_file or data.retain_file" if setting == "data.path" else ""
        raise UserError(f"{setting}={path!r}: a file, not a folder of splits{instead}")
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise UserError(f"{setting}={path!r}: no such folder, and not a hub id (owner/name)")


def hub_names(split: str) -> tuple[str, str]:
    """(config, split) on the hub: those of CONFIG/SPLIT, else TOFU's, whose configs have one split called train."""
    config, _, name = split.rpartition("/")
    return (config, name) if config else (name, "train")


def load_split(path: str, split: str, setting: str = "data.path") -> Rows:
    """The rows of one split.

    Args:
        path: a folder of SPLIT.jsonl (or another kind of file, or as `find_split` says), or the hub id of a data set.
        split: the name of the file, or of the data set's config, such as "forget10"; or CONFIG/SPLIT.
        setting: the setting that holds the path, for error messages.

    Raises:
        UserError: the split is not there; the message names those that are.
    """
    path = expand(path)
    check_path(path, setting)
    if Path(path).is_dir():
        files = find_split(Path(path), split)
        if not files:
            here = few(split_names(Path(path)), 12)
            raise UserError(f"{path}: no split {split!r}; it has: {here or 'no data files'}")
        return [row for file in files for row in read_file(file)]
    import datasets

    config, name = hub_names(split)
    try:
        return datasets.load_dataset(path, config, split=name).to_list()
    except Exception as error:  # the hub client raises many kinds; each means that the split could not be had
        raise UserError(
            f"{setting}={path!r}, split {split!r}: no such folder, and the hub did not give it: {hub_problem(error)}"
        ) from None


def has_split(path: str, split: str) -> bool:
    """Whether the data has an optional split."""
    check_path(path)
    if Path(path).is_dir():
        return bool(find_split(Path(path), split))
    import datasets

    config, name = hub_names(split)
    try:
        if config not in datasets.get_dataset_config_names(path):
            return False
        return "/" not in split or name in datasets.get_dataset_split_names(path, config)
    except Exception as error:  # as in load_split
        raise UserError(
            f"data.path={path!r}: no such folder, and the hub did not give it: {hub_problem(error)}"
        ) from None
