"""Mistral, Zephyr (`MistralForCausalLM`) and Ministral (`MinistralForCausalLM`): Llama with a window.

Mistral's window is in every layer, or in none; Ministral's is in the layers that `layer_types` names.
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


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Mistral or Ministral `config.json`."""
    sizes, window = read_sizes(raw), raw.get("sliding_window", 4096)
    rope = read_rope(raw, sizes["head_dim"])
    named = raw if raw.get("model_type") == "ministral" else raw | {"layer_types": None}
    return ModelConfig(
        family="mistral",
        layers=layers_by_type(
            read_layer_types(named, [SLIDING]), {FULL: LayerKind(rope), SLIDING: LayerKind(rope, window)}
        ),
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        activation=read_activation(raw, "silu"),
        tied_head=raw.get("tie_word_embeddings", False),
        **sizes,
    )


FAMILY = Family(read_config, WEIGHTS)
