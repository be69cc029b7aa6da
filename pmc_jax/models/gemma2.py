"""Gemma-2 (`Gemma2ForCausalLM`): norms (1 + w) before and after attention and MLP, scaled embedding, soft-caps, and a
window in every other layer.
"""

from typing import Any

from pmc_jax.errors import UserError
from pmc_jax.models.config import (
    FULL,
    SLIDING,
    LayerKind,
    ModelConfig,
    layers_by_type,
    read_activation,
    read_layer_types,
    read_sizes,
)
from pmc_jax.models.family import Family
from pmc_jax.models.llama import COMMON
from pmc_jax.models.read_rope import read_rope


def read_shared(raw: dict[str, Any]) -> dict[str, Any]:
    """What Gemma-2 and Gemma-3 have in common of a ModelConfig."""
    if raw.get("use_bidirectional_attention"):
        raise UserError("config.json: use_bidirectional_attention=true is not supported; a decoder looks back only")
    sizes, bias = read_sizes({"head_dim": 256} | raw), raw.get("attention_bias", False)
    return dict(
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "gelu_pytorch_tanh", "hidden_activation"),
        tied_head=raw.get("tie_word_embeddings", True),
        norm="rms_offset",
        post_norm=True,
        attention_bias=bias,
        output_bias=bias,
        embed_scale=sizes["width"] ** 0.5,
        **sizes,
    )


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Gemma-2 `config.json`."""
    shared = read_shared(raw)
    rope, scale = read_rope(raw, shared["head_dim"]), raw.get("query_pre_attn_scalar", 256) ** -0.5
    softcap = raw.get("attn_logit_softcapping", 50.0)
    kinds = {FULL: LayerKind(rope, None, scale, softcap)}
    kinds[SLIDING] = LayerKind(rope, raw.get("sliding_window", 4096), scale, softcap)
    layers = layers_by_type(read_layer_types(raw, [SLIDING, FULL]), kinds)
    return ModelConfig(family="gemma2", layers=layers, logit_softcap=raw.get("final_logit_softcapping", 30.0), **shared)


WEIGHTS = (
    *COMMON,
    ("model.layers.{}.input_layernorm.weight", "layer_{}/attention_norm/scale", "D -> D"),
    ("model.layers.{}.post_attention_layernorm.weight", "layer_{}/attention_post_norm/scale", "D -> D"),
    ("model.layers.{}.pre_feedforward_layernorm.weight", "layer_{}/mlp_norm/scale", "D -> D"),
    ("model.layers.{}.post_feedforward_layernorm.weight", "layer_{}/mlp_post_norm/scale", "D -> D"),
)
FAMILY = Family(read_config, WEIGHTS)
