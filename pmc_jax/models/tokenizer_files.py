"""Tokenizers in and out of checkpoint folders: loaded by transformers, written as the files that they came from."""

import json
import shutil
from pathlib import Path
from typing import Any

from pmc_jax.data.files import check_pointer
from pmc_jax.errors import UserError, first_line
from pmc_jax.models import gguf
from pmc_jax.models.folder import find_folder
from pmc_jax.settings.paths import expand

# What transformers of any version reads of a tokenizer.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
# Names that transformers 5 writes -> those that versions 4 and 5 both read.
CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
GENERIC = {*CLASSES, *CLASSES.values()}  # the class that has nothing but what tokenizer.json says


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder's tokenizer."""
    return sorted(file for pattern in FILES for file in folder.glob(pattern) if file.is_file())


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; remote code is never run.

    Raises:
        UserError: there is none, or a file of it is broken.
    """
    for file in tokenizer_files(folder):
        check_pointer(file)
    try:
        return tokenizer_class(folder).from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a broken or absent tokenizer
        raise UserError(
            f"{folder}: its tokenizer cannot be loaded: {first_line(error)[:120]}; copy tokenizer.json and "
            "tokenizer_config.json of the original checkpoint into the folder"
        ) from None


def tokenizer_of(checkpoint: str) -> Any:
    """The tokenizer alone of a checkpoint: a folder, a hub id or a GGUF file. UserError where there is none."""
    path = expand(checkpoint)
    return gguf.read(path).tokenizer if Path(path).is_file() else load_tokenizer(find_folder(path))


def tokenizer_class(folder: Path) -> Any:
    """The class that reads a folder's tokenizer.

    The generic one is taken by its name: AutoTokenizer imports every model's module first, which takes many times
    longer than reading the tokenizer, and may put a class of the model's family in its place, with tokens of its own.
    """
    config = folder / "tokenizer_config.json"
    named = json.loads(config.read_text("utf-8")) if config.is_file() and (folder / "tokenizer.json").is_file() else {}
    if named.get("tokenizer_class") in GENERIC and "auto_map" not in named:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def write_tokenizer(tokenizer: Any, source: Path | None, folder: Path) -> None:
    """Write a tokenizer into a folder.

    Files of the source are copied as they are: a newer transformers writes what an older one cannot read, and says
    nothing else with it. A tokenizer that is not the source's any more is written anew.

    Args:
        tokenizer: a transformers tokenizer.
        source: the folder that it was loaded from; None = there is none, or no more.
        folder: where to.
    """
    if source is not None and is_tokenizer_of(tokenizer, source):
        for file in tokenizer_files(source):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    if file.exists():
        file.write_text(json.dumps(readable_config(json.loads(file.read_text())), indent=2, ensure_ascii=False) + "\n")


def readable_config(config: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json of transformers 5 in words that transformers 4 reads too."""
    config = dict(config)
    name = config.get("tokenizer_class")
    config["tokenizer_class"] = CLASSES.get(name, name)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return {key: value for key, value in config.items() if value is not None}


def is_tokenizer_of(tokenizer: Any, folder: Path) -> bool:
    """Whether a folder's files hold this very tokenizer."""
    try:
        return bool(tokenizer_files(folder)) and same_tokenizer(tokenizer, load_tokenizer(folder))
    except UserError:  # damaged since
        return False


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers turn every text into the same ids and back, and render the same prompts."""
    return _content(one) == _content(other)


def _content(tokenizer: Any) -> tuple:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    core = {key: value for key, value in core.items() if key not in ("truncation", "padding")}  # of the last call
    return core, tokenizer.chat_template, tokenizer.special_tokens_map
