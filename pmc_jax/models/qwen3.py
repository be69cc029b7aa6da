"""Qwen3 (`Qwen3ForCausalLM`): Llama with norms of each query and key head before RoPE, and an explicit head width."""

from typing import Any

from pmc_jax.models.config import ModelConfig, read_activation, read_sizes
from pmc_jax.models.family import Family
from pmc_jax.models.llama import QK_NORM, WEIGHTS
from pmc_jax.models.qwen2 import read_layers


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Qwen3 `config.json`."""
    sizes, bias = read_sizes({"head_dim": 128} | raw), raw.get("attention_bias", False)
    return ModelConfig(
        family="qwen3",
        layers=read_layers(raw, sizes["head_dim"]),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        attention_bias=bias,
        output_bias=bias,
        qk_norm="rms",
        **sizes,
    )


FAMILY = Family(read_config, WEIGHTS + QK_NORM)
