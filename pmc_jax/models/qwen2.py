"""Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`): Llama with biases of queries, keys and values.

The upper layers may have a window.
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
)
from pmc_jax.models.family import Family
from pmc_jax.models.llama import WEIGHTS
from pmc_jax.models.read_rope import read_rope


def read_layers(raw: dict[str, Any], head_dim: int) -> tuple[LayerKind, ...]:
    """The layers of Qwen2 and Qwen3: those from `max_window_layers` on have a window, where windows are used."""
    rope = read_rope(raw, head_dim)
    window = raw.get("sliding_window", 4096) if raw.get("use_sliding_window") else None
    full = raw.get("max_window_layers", 28) if window else raw["num_hidden_layers"]
    types = read_layer_types(raw, [FULL] * full + [SLIDING] * max(0, raw["num_hidden_layers"] - full))
    return layers_by_type(types, {FULL: LayerKind(rope), SLIDING: LayerKind(rope, window)})


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Qwen2 `config.json`."""
    sizes = read_sizes(raw)
    return ModelConfig(
        family="qwen2",
        layers=read_layers(raw, sizes["head_dim"]),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        attention_bias=True,
        **sizes,
    )


FAMILY = Family(read_config, WEIGHTS)
