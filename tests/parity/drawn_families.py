"""Random configurations of every family beside Llama and Phi: all switches, windows shorter than the texts."""

from collections.abc import Callable
from typing import Any

import golden
import numpy as np
from reference import draw_rope, transformers

FULL, SLIDING = "full_attention", "sliding_attention"
LENGTH = 24  # max_position_embeddings; the texts are longer


def draw_sizes(rng: np.random.Generator, seed: int, layers: int = 2) -> dict[str, Any]:
    """What all families have in common."""
    kv_heads, group = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 4]))
    return dict(
        vocab_size=int(rng.integers(golden.VOCAB, 120)),
        hidden_size=kv_heads * group * 8,
        intermediate_size=int(rng.integers(16, 60)),
        num_hidden_layers=layers,
        num_attention_heads=kv_heads * group,
        num_key_value_heads=kv_heads,
        rms_norm_eps=float(rng.choice([1e-6, 1e-5, 1e-2])),
        max_position_embeddings=LENGTH,
        tie_word_embeddings=seed // 2 % 2 == 0,
        bos_token_id=None,
        pad_token_id=None,
        eos_token_id=golden.END,
    )


def draw_longrope(rng: np.random.Generator, pairs: int, seed: int) -> dict[str, Any]:
    """longrope over a third of the texts' length; the attention factor is given or follows from the lengths."""
    rope = {"rope_type": "longrope", "rope_theta": float(rng.choice([100.0, 10000.0]))}
    rope |= {name: np.sort(rng.uniform(1, 8, pairs)).round(2).tolist() for name in ("short_factor", "long_factor")}
    return rope | ({"attention_factor": 1.3} if seed % 3 == 2 else {})


def draw_yarn(rng: np.random.Generator, seed: int) -> dict[str, Any]:
    """yarn with all its options now and then; bounds within so short wavelengths."""
    rope = {"rope_type": "yarn", "rope_theta": float(rng.choice([50.0, 1000.0])), "factor": float(rng.choice([2, 4]))}
    rope |= {"original_max_position_embeddings": 16, "beta_fast": 2.0, "beta_slow": float(rng.choice([0.2, 0.5]))}
    options = [{}, {"attention_factor": 1.2}, {"mscale": 0.7, "mscale_all_dim": 0.3}, {"truncate": False}]
    return rope | options[seed % 4]


def draw_some_rope(rng: np.random.Generator, seed: int) -> dict[str, Any]:
    """Any kind of RoPE that needs no list."""
    kind = ["default", "linear", "yarn", "llama3", "dynamic"][seed % 5]
    return draw_yarn(rng, seed // 5) if kind == "yarn" else draw_rope(rng, kind, None)


def draw_types(rng: np.random.Generator, layers: int) -> list[str]:
    """Both kinds of layers, in any order."""
    return rng.permutation([FULL, SLIDING, *rng.choice([FULL, SLIDING], layers - 2).tolist()]).tolist()


def draw_qwen2(seed: int) -> Any:
    rng = np.random.default_rng([11, seed])
    windows = [{}, {"use_sliding_window": True, "max_window_layers": 1}, {"use_sliding_window": False}][seed % 3]
    return transformers.Qwen2Config(
        **draw_sizes(rng, seed), **windows, sliding_window=5 + seed % 4, rope_parameters=draw_some_rope(rng, seed)
    )


def draw_qwen3(seed: int) -> Any:
    rng = np.random.default_rng([12, seed])
    windows = [{}, {"use_sliding_window": True, "layer_types": [SLIDING, FULL]}][seed % 2]
    return transformers.Qwen3Config(
        **draw_sizes(rng, seed),
        **windows,
        head_dim=int(rng.choice([8, 12, 16])),
        attention_bias=seed % 3 == 1,
        sliding_window=5 + seed % 4,
        rope_parameters=draw_some_rope(rng, seed),
    )


def draw_mistral(seed: int) -> Any:
    rng = np.random.default_rng([13, seed])
    common = dict(
        **draw_sizes(rng, seed),
        head_dim=[None, 12, 16][seed % 3],
        rope_parameters=draw_some_rope(rng, seed),
    )
    if seed % 3 == 2:
        types = None if seed % 2 else draw_types(rng, 2)
        return transformers.MinistralConfig(**common, sliding_window=5 + seed % 4, layer_types=types)
    return transformers.MistralConfig(**common, sliding_window=None if seed % 4 == 3 else 5 + seed % 4)


def draw_olmo2(seed: int) -> Any:
    rng = np.random.default_rng([14, seed])
    return transformers.Olmo2Config(
        **draw_sizes(rng, seed), attention_bias=seed % 3 == 1, rope_parameters=draw_some_rope(rng, seed)
    )


def draw_olmo3(seed: int) -> Any:
    rng = np.random.default_rng([15, seed])
    full = draw_some_rope(rng, [0, 1, 2, 3][seed % 4]) | {"rope_theta": 500000.0}
    return transformers.Olmo3Config(
        **draw_sizes(rng, seed, layers=4 if seed % 4 == 1 else 2),
        attention_bias=seed % 3 == 1,
        sliding_window=5 + seed % 4,
        layer_types=None if seed % 4 == 1 else draw_types(rng, 2),
        rope_parameters={FULL: full, SLIDING: {"rope_type": "default", "rope_theta": 500000.0}},
    )


def draw_phi3(seed: int) -> Any:
    rng = np.random.default_rng([16, seed])
    partial = [1.0, 0.5, 0.75][seed % 3]
    rope = draw_longrope(rng, int(8 * partial) // 2, seed) if seed % 4 else {"rope_type": "default", "rope_theta": 1e4}
    return transformers.Phi3Config(
        **draw_sizes(rng, seed),
        original_max_position_embeddings=12,
        sliding_window=[None, 7, 9][seed // 2 % 3],
        rope_parameters=rope | {"partial_rotary_factor": partial},
    )


def draw_gemma2(seed: int) -> Any:
    rng = np.random.default_rng([17, seed])
    return transformers.Gemma2Config(
        **draw_sizes(rng, seed, layers=3 if seed % 4 == 0 else 2),
        head_dim=int(rng.choice([8, 12])),
        hidden_activation=["gelu_pytorch_tanh", "gelu", "silu"][seed % 3],
        attention_bias=seed % 3 == 1,
        query_pre_attn_scalar=[8, 24][seed % 2],
        sliding_window=5 + seed % 4,
        layer_types=draw_types(rng, 3) if seed % 4 == 0 else None,
        attn_logit_softcapping=[2.0, None, 50.0][seed % 3],
        final_logit_softcapping=[None, 5.0, 30.0][seed // 2 % 3],
        rope_parameters=draw_some_rope(rng, seed),
    )


def draw_gemma3(seed: int) -> Any:
    rng = np.random.default_rng([18, seed])
    layers = 3 if seed % 4 == 1 else 2
    pattern = {"layer_types": draw_types(rng, layers)} if seed % 2 else {"sliding_window_pattern": 2}
    ends = {"eos_token_id": [golden.END, golden.END + 1]} if seed % 2 else {}
    return transformers.Gemma3TextConfig(
        **draw_sizes(rng, seed, layers) | ends,
        **pattern,
        head_dim=int(rng.choice([8, 12])),
        hidden_activation=["gelu_pytorch_tanh", "gelu", "silu"][seed % 3],
        attention_bias=seed % 3 == 1,
        query_pre_attn_scalar=[8, 24][seed % 2],
        sliding_window=5 + seed % 4,
        final_logit_softcapping=[None, 5.0][seed // 2 % 2],
        rope_parameters={
            FULL: draw_rope(rng, ["default", "linear"][seed // 2 % 2], None),
            SLIDING: {"rope_type": "default", "rope_theta": 50.0},
        },
    )


def draw_llama_scaled(seed: int) -> Any:
    """Llama with the scalings that the draws of reference.py do not have."""
    rng = np.random.default_rng([19, seed])
    sizes = draw_sizes(rng, seed)
    rope = draw_yarn(rng, seed // 2)
    if seed % 2:
        rope = draw_longrope(rng, 4, seed // 2) | {"original_max_position_embeddings": 12}
    switches = dict(attention_bias=seed % 3 == 0, mlp_bias=seed % 3 == 1, pretraining_tp=1 + seed % 2)
    return transformers.LlamaConfig(**sizes, **switches, rope_parameters=rope)


DRAW: dict[str, Callable[[int], Any]] = {
    "qwen2": draw_qwen2,
    "qwen3": draw_qwen3,
    "mistral": draw_mistral,
    "olmo2": draw_olmo2,
    "olmo3": draw_olmo3,
    "phi3": draw_phi3,
    "gemma2": draw_gemma2,
    "gemma3": draw_gemma3,
    "llama-scaled": draw_llama_scaled,
}
