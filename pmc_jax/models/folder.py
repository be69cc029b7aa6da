"""The folder of a checkpoint: where it is, the hub's too, and the JSON files in it."""

import json
from pathlib import Path
from typing import Any

from pmc_jax.data.files import check_pointer
from pmc_jax.data.hub import hub_problem
from pmc_jax.errors import UserError, first_line

NEEDED = ["*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]


def check_path(path: str) -> None:
    """UserError for what is neither a folder nor a file nor could be a hub id; nothing is read or fetched."""
    if not path:
        raise UserError(
            "model.path is empty: give a hub id or a folder, as --config.model.path=meta-llama/Llama-3.2-1B-Instruct"
        )
    if Path(path).is_file():
        return
    if path.endswith(".gguf"):
        raise UserError(f"model.path={path!r}: no such file")
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise UserError(f"model.path={path!r}: no such folder or file, and not a hub id (owner/name)")


def find_folder(path: str) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (or found in the hub's cache)."""
    check_path(path)
    if Path(path).is_dir():
        return Path(path)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(path, allow_patterns=NEEDED))
    except Exception as error:  # the hub client raises many kinds; each means that the checkpoint could not be had
        raise UserError(
            f"model.path={path!r}: no such folder, and the hub did not give it: {hub_problem(error)}"
        ) from None


def read_json(file: Path, required: bool = True) -> dict[str, Any]:
    """A JSON object; {} when an optional file is absent."""
    if not file.exists():
        if required:
            raise UserError(f"{file}: missing; a checkpoint folder needs it")
        return {}
    try:
        check_pointer(file)
        value = json.loads(file.read_text(encoding="utf-8"))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8
        raise UserError(f"{file}: not valid JSON: {first_line(error)}; download it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{file}: must hold a JSON object, not a {type(value).__name__}")
    return value


def check_whole(folder: Path) -> None:
    """UserError for a folder that holds an adapter and no model."""
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        named, other = (base, base) if base else ("a model that it does not name", "that model")
        raise UserError(
            f"{folder}: an adapter of {named}, not a model; merge it into that model first, or load {other}"
        )
