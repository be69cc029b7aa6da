"""Phi-1, 1.5 and 2 (`PhiForCausalLM`): one LayerNorm feeds attention and MLP in parallel, partial rotary, biases
everywhere.
"""

from typing import Any

import flax.linen as nn

from pmc_jax.models.config import ModelConfig, need, read_activation, read_heads, read_rope
from pmc_jax.models.layers import ACTIVATION, Attention, Decoder, LayerNorm, project
from pmc_jax.models.llama import WEIGHTS as LLAMA_WEIGHTS


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Phi `config.json`."""
    heads = read_heads(raw)
    return ModelConfig(
        family="phi",
        vocab_size=need(raw, "vocab_size"),
        width=need(raw, "hidden_size"),
        mlp_width=need(raw, "intermediate_size"),
        num_layers=need(raw, "num_hidden_layers"),
        norm_eps=raw.get("layer_norm_eps", 1e-5),
        activation=read_activation(raw, "gelu_new"),
        rope=read_rope(raw, heads["head_dim"], default_partial=0.5),
        tied_head=raw.get("tie_word_embeddings", False),
        attention_bias=True,
        mlp_bias=True,
        qk_norm=raw.get("qk_layernorm", False),
        **heads,
    )


class MLP(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        D, F = self.config.width, self.config.mlp_width
        hidden_BTF = ACTIVATION[self.config.activation](project(self, "up", x_BTD, (F,), bias=True))
        return project(self, "down", hidden_BTF, (D,), bias=True)


class Block(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, tables, mask_BTS, cache, where):
        c = self.config
        normed_BTD = LayerNorm(c.norm_eps, name="norm")(x_BTD)
        out_BTD, own = Attention(c, output_bias=True, name="attention")(normed_BTD, tables, mask_BTS, cache, where)
        return x_BTD + out_BTD + MLP(c, name="mlp")(normed_BTD), own


class Phi(Decoder):
    block = Block
    final_norm = LayerNorm
    head_bias = True


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
