"""Gemma-3 (`Gemma3ForCausalLM`): Gemma-2 with q/k-norms for soft-caps, and five layers with a window and a RoPE of
their own for each without. Of the multimodal checkpoints (`Gemma3ForConditionalGeneration`) the text model is read; the
vision tower stays as it is.
"""

from typing import Any

from pmc_jax.models.config import FULL, SLIDING, LayerKind, ModelConfig, layers_by_type, read_layer_types
from pmc_jax.models.family import Family
from pmc_jax.models.gemma2 import WEIGHTS, read_shared
from pmc_jax.models.llama import QK_NORM
from pmc_jax.models.read_rope import read_ropes


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Gemma-3 text `config.json`."""
    shared = read_shared(raw)
    ropes = read_ropes(raw, shared["head_dim"], 1e6, raw.get("rope_local_base_freq") or 1e4)
    scale = raw.get("query_pre_attn_scalar", 256) ** -0.5
    windows = {FULL: None, SLIDING: raw.get("sliding_window", 4096)}
    kinds = {name: LayerKind(ropes[name], window, scale) for name, window in windows.items()}
    every = raw.get("sliding_window_pattern") or 6
    layers = layers_by_type(read_layer_types(raw, [SLIDING] * (every - 1) + [FULL]), kinds)
    softcap = raw.get("final_logit_softcapping")
    return ModelConfig(family="gemma3", layers=layers, qk_norm="rms_offset", logit_softcap=softcap, **shared)


def read_multimodal(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of the text model of a multimodal Gemma-3 `config.json`."""
    return read_config(TEXT_DEFAULTS | raw["text_config"] | {k: raw[k] for k in ("num_hidden_layers",) if k in raw})


# What the text part of a multimodal config.json leaves out where it is as in transformers.
TEXT_DEFAULTS = dict(
    model_type="gemma3_text",
    vocab_size=262208,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=131072,
)
FAMILY = Family(read_config, WEIGHTS + QK_NORM)
MULTIMODAL = Family(
    read_multimodal,
    tuple((f"language_model.{name}", path, axes) for name, path, axes in FAMILY.weights),
    carried=("vision_tower.", "multi_modal_projector."),
)
