"""A GGUF file read as a Hugging Face checkpoint: config, tensors by Hugging Face name, tokenizer."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from pmc_jax.errors import UserError, first_line
from pmc_jax.models import gguf_layouts, gguf_rope, gguf_tokenizer
from pmc_jax.models.gguf_file import Fields, StoredTensor, read_header


class GGUFCheckpoint(NamedTuple):
    """What a folder's files would say: config.json, generation_config.json, the tensors by name, the tokenizer."""

    raw_config: dict[str, Any]
    generation_config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    tokenizer: Any


def read(path: str | Path) -> GGUFCheckpoint:
    """Read a GGUF file, all but the numbers in its tensors.

    Args:
        path: the file: an architecture in gguf_layouts.LAYOUTS, of any tensor types that the library `gguf`
            dequantises.

    Returns:
        Config, generation config, tensors and tokenizer, in Hugging Face's words.

    Raises:
        UserError: in one line, for a missing library, a file that is no GGUF or is cut, another architecture, a
            tensor type, RoPE scaling or tokenizer that is not supported.
    """
    file = Path(path)
    header = read_header(file)
    fields = Fields(file, str(header.metadata.get("general.architecture")), *header)
    layout = gguf_layouts.find_layout(fields)
    config = gguf_layouts.read_config(fields, layout)
    tensors = {}
    for stored_name, tensor in header.tensors.items():
        if stored_name not in gguf_rope.TENSORS:
            name = hugging_face_name(stored_name, layout)
            tensors[name] = as_in_hugging_face(name, tensor, layout, config)
    tokenizer = make_tokenizer(file, header.metadata)
    if len(tokenizer) > config["vocab_size"]:
        raise UserError(f"{file}: has {len(tokenizer)} tokens and {config['vocab_size']} embeddings")
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
    return GGUFCheckpoint(config, ids, tensors, tokenizer)


def make_tokenizer(file: Path, metadata: dict[str, Any]) -> Any:
    """The file's tokenizer; UserError, in one line, when it cannot be built."""
    try:
        return gguf_tokenizer.make_tokenizer(file, metadata)
    except UserError:
        raise
    except Exception as error:  # the library raises plain exceptions for merges and tokens that do not fit
        raise UserError(f"{file}: its tokenizer cannot be built: {first_line(error)}") from None


def hugging_face_name(name: str, layout: gguf_layouts.Layout) -> str:
    """Hugging Face's name of a tensor; one that the layout does not know keeps its own, and is then refused by it."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in layout.layer_tensors:
        return f"model.layers.{layer[1]}.{layout.layer_tensors[layer[2]]}.{layer[3]}"
    stem, _, part = name.rpartition(".")
    return f"{gguf_layouts.TENSORS[stem]}.{part}" if stem in gguf_layouts.TENSORS else name


def as_in_hugging_face(
    name: str, tensor: StoredTensor, layout: gguf_layouts.Layout, config: dict[str, Any]
) -> StoredTensor:
    """The tensor with what llama.cpp did to it, which reading undoes."""
    module, part = name.rsplit(".", 2)[-2:] if "." in name else ("", "")
    if layout.interleaved:
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        tensor = tensor._replace(heads=heads.get(module, 0))
    is_norm = module.endswith("norm") and part == "weight"
    return tensor._replace(added=layout.norm_offset if is_norm else 0.0)
