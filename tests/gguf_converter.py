"""GGUF files of any architecture, made with the gguf library's writer and names, by the rules of llama.cpp's converter.

They are made from what a checkpoint folder has: a config.json and tensors by Hugging Face's names.
"""

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_files import add_tensor, interleave, write_tokenizer

ARCHITECTURES = {
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


def write_sizes(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    """What every architecture has."""
    writer.add_context_length(raw["max_position_embeddings"])
    writer.add_embedding_length(raw["hidden_size"])
    writer.add_feed_forward_length(raw["intermediate_size"])
    writer.add_block_count(raw["num_hidden_layers"])
    writer.add_head_count(raw["num_attention_heads"])
    writer.add_head_count_kv(raw["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(raw["rms_norm_eps"])
    writer.add_rope_freq_base(rope_of(raw)["rope_theta"])
    if raw.get("head_dim") and raw["model_type"] != "phi3":
        writer.add_key_length(raw["head_dim"])
        writer.add_value_length(raw["head_dim"])
    if raw["model_type"] == "mistral":
        writer.add_rope_dimension_count(raw["head_dim"])


def rope_of(raw: dict[str, Any]) -> dict[str, Any]:
    """RoPE of all layers, or of those without a window."""
    return raw["rope_parameters"].get("full_attention", raw["rope_parameters"])


def write_scaling(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    """linear and yarn, which are metadata alone."""
    rope = rope_of(raw)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        add = {
            "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
            "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
            "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
        }
        for key, method in add.items():
            if rope.get(key) is not None:
                method(rope[key])


def write_phi3(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    """Phi-3: window 0 is none; the factors are tensors."""
    rope, longest, original = rope_of(raw), raw["max_position_embeddings"], raw["original_max_position_embeddings"]
    writer.add_sliding_window(raw["sliding_window"] or 0)
    writer.add_rope_scaling_orig_ctx_len(original)
    share = rope.get("partial_rotary_factor", 1.0) * raw["hidden_size"]
    writer.add_rope_dimension_count(int(share) // raw["num_attention_heads"])
    if rope["rope_type"] != "longrope":
        return
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(longest / original) / math.log(original)))
    for key, name in (("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")):
        writer.add_tensor(name, np.array(rope[key], np.float32))


def write_gemma(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    """Gemma-2 and 3."""
    writer.add_sliding_window(raw["sliding_window"])
    if raw.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(raw["attn_logit_softcapping"])
    if raw.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(raw["final_logit_softcapping"])


def convert(path: Path, raw: dict[str, Any], tensors: dict[str, np.ndarray], tokenizer: Any, kind: str = "F32") -> Path:
    """Write a checkpoint as a GGUF file.

    Args:
        path: the file.
        raw: its config.json, as transformers 5 writes it.
        tensors: by Hugging Face's names.
        tokenizer: a byte-level BPE of transformers.
        kind: the type of matrices.
    """
    architecture = ARCHITECTURES[raw["model_type"]]
    name = gguf.MODEL_ARCH_NAMES[architecture]
    writer = gguf.GGUFWriter(path, name)
    writer.add_name("drawn")
    write_tokenizer(writer, tokenizer)
    write_sizes(writer, raw)
    write_scaling(writer, raw)
    if name == "phi3":
        write_phi3(writer, raw)
    if name.startswith("gemma"):
        write_gemma(writer, raw)
    names = gguf.get_tensor_name_map(architecture, raw["num_hidden_layers"])
    heads = {"q_proj": raw["num_attention_heads"], "k_proj": raw["num_key_value_heads"]} if name == "llama" else {}
    for source, tensor in tensors.items():
        if source == "lm_head.weight" and raw["tie_word_embeddings"]:
            continue
        stem, _, part = source.rpartition(".")
        module = stem.rpartition(".")[2]
        if module in heads:
            tensor = interleave(tensor, heads[module])
        if name.startswith("gemma") and source.endswith("norm.weight"):
            tensor = tensor + np.float32(1)
        add_tensor(writer, f"{names.get_name(stem)}.{part}", tensor, kind if tensor.ndim == 2 else "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
