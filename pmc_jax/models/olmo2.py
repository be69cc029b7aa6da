"""OLMo-2 (`Olmo2ForCausalLM`) and OLMo-3 (`Olmo3ForCausalLM`): norms after attention and MLP, and over all heads of
queries and keys together. OLMo-3 has a window in three of four layers, and scales RoPE in the others only.
"""

from typing import Any

from pmc_jax.models.config import (
    FULL,
    SLIDING,
    LayerKind,
    ModelConfig,
    layers_by_type,
    read_activation,
    read_layer_types,
    read_sizes,
    same_layers,
)
from pmc_jax.models.family import Family
from pmc_jax.models.llama import COMMON
from pmc_jax.models.read_rope import read_rope, read_ropes

THETA = 500000.0  # of OLMo-3, where the config does not say


def read_layers(raw: dict[str, Any], head_dim: int) -> tuple[LayerKind, ...]:
    """All alike in OLMo-2; of two kinds in OLMo-3."""
    if raw.get("model_type") != "olmo3":
        return same_layers(raw, LayerKind(read_rope(raw, head_dim)))
    ropes = read_ropes(raw, head_dim, THETA, raw.get("rope_theta") or THETA)
    kinds = {FULL: LayerKind(ropes[FULL]), SLIDING: LayerKind(ropes[SLIDING], raw.get("sliding_window", 4096))}
    return layers_by_type(read_layer_types(raw, [SLIDING, SLIDING, SLIDING, FULL]), kinds)


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face OLMo-2 or OLMo-3 `config.json`."""
    sizes, bias = read_sizes(raw), raw.get("attention_bias", False)
    return ModelConfig(
        family="olmo",
        layers=read_layers(raw, sizes["head_dim"]),
        norm_eps=raw.get("rms_norm_eps", 1e-5),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        norm="rms_float32",
        pre_norm=False,
        post_norm=True,
        attention_bias=bias,
        output_bias=bias,
        qk_norm="rms_float32",
        qk_norm_full=True,
        **sizes,
    )


WEIGHTS = (
    *COMMON,
    ("model.layers.{}.self_attn.q_norm.weight", "layer_{}/attention/query_norm/scale", "NH -> N H"),
    ("model.layers.{}.self_attn.k_norm.weight", "layer_{}/attention/key_norm/scale", "KH -> K H"),
    ("model.layers.{}.post_attention_layernorm.weight", "layer_{}/attention_post_norm/scale", "D -> D"),
    ("model.layers.{}.post_feedforward_layernorm.weight", "layer_{}/mlp_post_norm/scale", "D -> D"),
)
FAMILY = Family(read_config, WEIGHTS)
