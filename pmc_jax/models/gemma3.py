"""Gemma-3, text only (`Gemma3ForCausalLM`): Gemma-2 with q/k-norms for soft-caps, and five layers with a window and a
RoPE of their own for each without.
"""

from typing import Any

from pmc_jax.models.config import FULL, SLIDING, LayerKind, ModelConfig, layers_by_type, read_layer_types
from pmc_jax.models.family import Family
from pmc_jax.models.gemma2 import WEIGHTS, read_shared
from pmc_jax.models.llama import QK_NORM
from pmc_jax.models.read_rope import read_ropes


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """ModelConfig of a Hugging Face Gemma-3 text `config.json`."""
    shared = read_shared(raw)
    ropes = read_ropes(raw, shared["head_dim"], 1e6, raw.get("rope_local_base_freq") or 1e4)
    scale = raw.get("query_pre_attn_scalar", 256) ** -0.5
    windows = {FULL: None, SLIDING: raw.get("sliding_window", 4096)}
    kinds = {name: LayerKind(ropes[name], window, scale) for name, window in windows.items()}
    every = raw.get("sliding_window_pattern") or 6
    layers = layers_by_type(read_layer_types(raw, [SLIDING] * (every - 1) + [FULL]), kinds)
    softcap = raw.get("final_logit_softcapping")
    return ModelConfig(family="gemma3", layers=layers, qk_norm="rms_offset", logit_softcap=softcap, **shared)


FAMILY = Family(read_config, WEIGHTS + QK_NORM)
