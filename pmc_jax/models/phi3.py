"""Phi-3, 3.5, 4 and 4-mini (`Phi3ForCausalLM`): Llama with fused projections, LongRoPE, and a window in every layer."""

from typing import Any

from pmc_jax.models.config import LayerKind, ModelConfig, read_activation, read_sizes, same_layers
from pmc_jax.models.family import Family
from pmc_jax.models.llama import WEIGHTS as LLAMA_WEIGHTS
from pmc_jax.models.read_rope import read_rope


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Phi-3 `config.json`. Its early files call longrope "su" or "yarn"."""
    sizes = read_sizes(raw)
    for key in ("rope_scaling", "rope_parameters"):
        scaling = raw.get(key) or {}
        raw = raw | {key: {k: "longrope" if v in ("su", "yarn") else v for k, v in scaling.items()}}
    kind = LayerKind(read_rope(raw, sizes["head_dim"]), raw.get("sliding_window"))
    return ModelConfig(
        family="phi3",
        layers=same_layers(raw, kind),
        norm_eps=raw.get("rms_norm_eps", 1e-5),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        **sizes,
    )


FUSED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
WEIGHTS = (
    *(row for row in LLAMA_WEIGHTS if not any(name in row[0] for name in FUSED)),
    ("model.layers.{}.self_attn.qkv_proj.weight", "layer_{}/attention/query", "[NH]+KH+KH D -> D N H"),
    ("model.layers.{}.self_attn.qkv_proj.weight", "layer_{}/attention/key", "NH+[KH]+KH D -> D K H"),
    ("model.layers.{}.self_attn.qkv_proj.weight", "layer_{}/attention/value", "NH+KH+[KH] D -> D K H"),
    ("model.layers.{}.mlp.gate_up_proj.weight", "layer_{}/mlp/gate", "[F]+F D -> D F"),
    ("model.layers.{}.mlp.gate_up_proj.weight", "layer_{}/mlp/up", "F+[F] D -> D F"),
)
FAMILY = Family(read_config, WEIGHTS)
