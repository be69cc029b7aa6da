"""Small GGUF files for the tests, made with the library's writer as llama.cpp's converter makes them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize

from pmc_jax.models import pretrained, weights

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    stem, _, part = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{part}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{part}"


def interleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key as llama.cpp stores them: the two of a rotary pair beside each other."""
    pairs = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def source_tensors(checkpoint: Any) -> dict[str, np.ndarray]:
    """{Hugging Face name: tensor} of a checkpoint."""
    from flax import traverse_util

    flat = traverse_util.flatten_dict(checkpoint.params, sep="/")
    sizes = checkpoint.model.config.axis_sizes
    return {
        weight.name: np.asarray(weight.to_source(flat[path], sizes), np.float32)
        for path, weight in weights.weight_map(checkpoint.family, checkpoint.model).items()
    }


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """A byte-level BPE tokenizer of transformers, as metadata."""
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    control = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in control else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    for name, value in (("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", value)
    if tokenizer.pad_token_id is not None:
        writer.add_uint32("tokenizer.ggml.padding_token_id", tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def write_gguf(
    path: Path,
    checkpoint: pretrained.PretrainedModel,
    kind: str = "F32",
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    rope_factors: np.ndarray | None = None,
) -> Path:
    """A checkpoint as a GGUF file.

    Args:
        path: the file.
        checkpoint: a Llama of ours.
        kind: the type of matrices; vectors are F32, as llama.cpp has them.
        architecture: what the file says it is.
        metadata: values to add or to replace; None leaves a key out.
        rope_factors: the tensor that llama.cpp stores for llama3's RoPE scaling.
    """
    c = checkpoint.config
    (rope,) = c.ropes
    values = {
        "context_length": rope.max_positions,
        "embedding_length": c.width,
        "block_count": c.num_layers,
        "feed_forward_length": c.mlp_width,
        "attention.head_count": c.num_heads,
        "attention.head_count_kv": c.num_kv_heads,
        "attention.key_length": c.head_dim,
        "rope.dimension_count": c.head_dim,
        "rope.freq_base": float(rope.theta),
        "attention.layer_norm_rms_epsilon": float(c.norm_eps),
    }
    writer = gguf.GGUFWriter(path, architecture)
    write_tokenizer(writer, checkpoint.tokenizer)
    for key, value in ({f"{architecture}.{key}": v for key, v in values.items()} | (metadata or {})).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    heads = {"attn_q": c.num_heads, "attn_k": c.num_kv_heads}
    for name, tensor in source_tensors(checkpoint).items():
        name = gguf_name(name)
        part = name.split(".")[-2]
        tensor = interleave(tensor, heads[part]) if part in heads else tensor
        add_tensor(writer, name, tensor, kind if tensor.ndim == 2 else "F32")
    if rope_factors is not None:
        add_tensor(writer, "rope_freqs.weight", rope_factors.astype(np.float32), "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, kind: str) -> None:
    """A tensor of one type, quantised by the library."""
    raw = gguf.GGMLQuantizationType[kind]
    if kind in ("F32", "F16"):
        writer.add_tensor(name, tensor.astype(np.float32 if kind == "F32" else np.float16))
    else:
        writer.add_tensor(name, quantize(tensor, raw), raw_dtype=raw)
