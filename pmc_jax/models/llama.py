"""Llama (`LlamaForCausalLM`): RMSNorm before attention and before a gated MLP, grouped heads, tied or untied head."""

from typing import Any

from pmc_jax.models.config import LayerKind, ModelConfig, read_activation, read_sizes, same_layers
from pmc_jax.models.family import Family
from pmc_jax.models.read_rope import read_rope


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Llama `config.json`."""
    sizes, bias = read_sizes(raw), raw.get("attention_bias", False)
    return ModelConfig(
        family="llama",
        layers=same_layers(raw, LayerKind(read_rope(raw, sizes["head_dim"]))),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=raw.get("mlp_bias", False),
        **sizes,
    )


WEIGHTS = (
    ("model.embed_tokens.weight", "embed", "V D -> V D"),
    ("model.layers.{}.input_layernorm.weight", "layer_{}/attention_norm/scale", "D -> D"),
    ("model.layers.{}.self_attn.q_proj.weight", "layer_{}/attention/query", "NH D -> D N H"),
    ("model.layers.{}.self_attn.q_proj.bias", "layer_{}/attention/query_bias", "NH -> N H"),
    ("model.layers.{}.self_attn.k_proj.weight", "layer_{}/attention/key", "KH D -> D K H"),
    ("model.layers.{}.self_attn.k_proj.bias", "layer_{}/attention/key_bias", "KH -> K H"),
    ("model.layers.{}.self_attn.v_proj.weight", "layer_{}/attention/value", "KH D -> D K H"),
    ("model.layers.{}.self_attn.v_proj.bias", "layer_{}/attention/value_bias", "KH -> K H"),
    ("model.layers.{}.self_attn.o_proj.weight", "layer_{}/attention/output", "D NH -> N H D"),
    ("model.layers.{}.self_attn.o_proj.bias", "layer_{}/attention/output_bias", "D -> D"),
    ("model.layers.{}.post_attention_layernorm.weight", "layer_{}/mlp_norm/scale", "D -> D"),
    ("model.layers.{}.mlp.gate_proj.weight", "layer_{}/mlp/gate", "F D -> D F"),
    ("model.layers.{}.mlp.gate_proj.bias", "layer_{}/mlp/gate_bias", "F -> F"),
    ("model.layers.{}.mlp.up_proj.weight", "layer_{}/mlp/up", "F D -> D F"),
    ("model.layers.{}.mlp.up_proj.bias", "layer_{}/mlp/up_bias", "F -> F"),
    ("model.layers.{}.mlp.down_proj.weight", "layer_{}/mlp/down", "D F -> F D"),
    ("model.layers.{}.mlp.down_proj.bias", "layer_{}/mlp/down_bias", "D -> D"),
    ("model.norm.weight", "final_norm/scale", "D -> D"),
    ("lm_head.weight", "head", "V D -> V D"),
)

# The rows of embedding, head, attention, MLP and final norm; families with other norms in their blocks add theirs.
COMMON = tuple(row for row in WEIGHTS if row[1] not in ("layer_{}/attention_norm/scale", "layer_{}/mlp_norm/scale"))
QK_NORM = (
    ("model.layers.{}.self_attn.q_norm.weight", "layer_{}/attention/query_norm/scale", "H -> H"),
    ("model.layers.{}.self_attn.k_norm.weight", "layer_{}/attention/key_norm/scale", "H -> H"),
)
FAMILY = Family(read_config, WEIGHTS)
