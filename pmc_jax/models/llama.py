"""Llama (`LlamaForCausalLM`): RMSNorm before attention and before a gated MLP, grouped heads, tied or untied head."""

from typing import Any

import flax.linen as nn

from pmc_jax.models.config import ModelConfig, need, read_activation, read_heads, read_rope
from pmc_jax.models.layers import ACTIVATION, Attention, Decoder, RMSNorm, project


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Llama `config.json`."""
    heads = read_heads(raw)
    return ModelConfig(
        family="llama",
        vocab_size=need(raw, "vocab_size"),
        width=need(raw, "hidden_size"),
        mlp_width=need(raw, "intermediate_size"),
        num_layers=need(raw, "num_hidden_layers"),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "silu"),
        rope=read_rope(raw, heads["head_dim"]),
        tied_head=raw.get("tie_word_embeddings", False),
        attention_bias=raw.get("attention_bias", False),
        mlp_bias=raw.get("mlp_bias", False),
        **heads,
    )


class MLP(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        D, F = self.config.width, self.config.mlp_width
        bias = self.config.mlp_bias
        gate_BTF, up_BTF = project(self, "gate", x_BTD, (F,), bias), project(self, "up", x_BTD, (F,), bias)
        return project(self, "down", ACTIVATION[self.config.activation](gate_BTF) * up_BTF, (D,), bias)


class Block(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, tables, mask_BTS, cache, where):
        c = self.config
        attention = Attention(c, output_bias=c.attention_bias, name="attention")
        out_BTD, own = attention(RMSNorm(c.norm_eps, name="attention_norm")(x_BTD), tables, mask_BTS, cache, where)
        x_BTD = x_BTD + out_BTD
        return x_BTD + MLP(c, name="mlp")(RMSNorm(c.norm_eps, name="mlp_norm")(x_BTD)), own


class Llama(Decoder):
    block = Block
    final_norm = RMSNorm


# (checkpoint name, parameter path, checkpoint axes -> our axes); letters in one group are flattened together in the
# checkpoint.
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
