"""Phi-1, 1.5 and 2 (`PhiForCausalLM`): one LayerNorm feeds attention and MLP in parallel, partial rotary, biases
everywhere.
"""

from typing import Any

from pmc_jax.models.config import LayerKind, ModelConfig, read_activation, read_sizes, same_layers
from pmc_jax.models.family import Family
from pmc_jax.models.llama import WEIGHTS as LLAMA_WEIGHTS
from pmc_jax.models.read_rope import read_rope


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Phi `config.json`."""
    sizes = read_sizes(raw)
    return ModelConfig(
        family="phi",
        layers=same_layers(raw, LayerKind(read_rope(raw, sizes["head_dim"], default_partial=0.5))),
        norm_eps=raw.get("layer_norm_eps", 1e-5),
        activation=read_activation(raw, "gelu_new"),
        tied_head=raw.get("tie_word_embeddings", False),
        norm="layer",
        parallel=True,
        gated_mlp=False,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        qk_norm="layer" if raw.get("qk_layernorm") else "",
        **sizes,
    )


# Queries, keys, values, embedding and head are named as in Llama; the rest is Phi's own.
SHARED = tuple(
    row for row in LLAMA_WEIGHTS if any(f".{part}_proj." in row[0] for part in "qkv") or row[1] in ("embed", "head")
)
WEIGHTS = (
    *SHARED,
    ("model.layers.{}.input_layernorm.weight", "layer_{}/norm/scale", "D -> D"),
    ("model.layers.{}.input_layernorm.bias", "layer_{}/norm/bias", "D -> D"),
    ("model.layers.{}.self_attn.q_layernorm.weight", "layer_{}/attention/query_norm/scale", "H -> H"),
    ("model.layers.{}.self_attn.q_layernorm.bias", "layer_{}/attention/query_norm/bias", "H -> H"),
    ("model.layers.{}.self_attn.k_layernorm.weight", "layer_{}/attention/key_norm/scale", "H -> H"),
    ("model.layers.{}.self_attn.k_layernorm.bias", "layer_{}/attention/key_norm/bias", "H -> H"),
    ("model.layers.{}.self_attn.dense.weight", "layer_{}/attention/output", "D NH -> N H D"),
    ("model.layers.{}.self_attn.dense.bias", "layer_{}/attention/output_bias", "D -> D"),
    ("model.layers.{}.mlp.fc1.weight", "layer_{}/mlp/up", "F D -> D F"),
    ("model.layers.{}.mlp.fc1.bias", "layer_{}/mlp/up_bias", "F -> F"),
    ("model.layers.{}.mlp.fc2.weight", "layer_{}/mlp/down", "D F -> F D"),
    ("model.layers.{}.mlp.fc2.bias", "layer_{}/mlp/down_bias", "D -> D"),
    ("model.final_layernorm.weight", "final_norm/scale", "D -> D"),
    ("model.final_layernorm.bias", "final_norm/bias", "D -> D"),
    ("lm_head.bias", "head_bias", "V -> V"),
)

FAMILY = Family(read_config, WEIGHTS)
