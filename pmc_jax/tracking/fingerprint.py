"""What a checkpoint is known by when its folder has moved."""

import hashlib
from pathlib import Path

from pmc_jax.errors import telling_file_errors

NAMES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)
BLOCKS, BLOCK = 64, 2**14  # of each file of weights, spread over it: any training changes all of them


def checkpoint_fingerprint(path: str) -> str | None:
    """SHA-256 of a checkpoint's small files and of samples of its weights; None for what is not on this machine."""
    place = Path(path)
    if not path or not place.exists():
        return None
    digest = hashlib.sha256()
    with telling_file_errors(place):
        files = [place] if place.is_file() else sorted(f for f in place.iterdir() if f.is_file())
        for file in files:
            if file.name in NAMES:
                digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
            elif file == place or file.suffix == ".safetensors":
                digest.update(f"{'' if file == place else file.name} {file.stat().st_size} ".encode())
                digest.update(samples(file))
    return digest.hexdigest()


def samples(file: Path) -> bytes:
    """Blocks of a file, its first and its last among them."""
    size = file.stat().st_size
    if size <= BLOCKS * BLOCK:
        return file.read_bytes()
    parts = []
    with file.open("rb") as opened:
        for number in range(BLOCKS):
            opened.seek((size - BLOCK) * number // (BLOCKS - 1))
            parts.append(opened.read(BLOCK))
    return b"".join(parts)
