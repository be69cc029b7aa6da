"""What a decoder is made of, read from a Hugging Face `config.json` of either style (transformers 4 or 5)."""

import dataclasses
from typing import Any

from pmc_jax.errors import UserError

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3")


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding: the first `dim` entries of each head are rotated."""

    type: str
    dim: int
    theta: float
    max_positions: int
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape and switches of one decoder; letters are the axis names used throughout."""

    family: str
    vocab_size: int  # V
    width: int  # D
    mlp_width: int  # F
    num_layers: int  # L
    num_heads: int  # N
    num_kv_heads: int  # K
    head_dim: int  # H
    norm_eps: float
    activation: str
    rope: Rope
    tied_head: bool
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Size of every parameter axis by its letter."""
        return {
            "V": self.vocab_size,
            "D": self.width,
            "F": self.mlp_width,
            "N": self.num_heads,
            "K": self.num_kv_heads,
            "H": self.head_dim,
        }


def need(raw: dict[str, Any], key: str) -> Any:
    """`raw[key]`, or a UserError that names the missing key."""
    if raw.get(key) is None:
        raise UserError(f"config.json has no {key!r}; a {raw.get('model_type')} model needs it")
    return raw[key]


def read_heads(raw: dict[str, Any]) -> dict[str, int]:
    """Head counts and width; checks that they divide."""
    width, heads = need(raw, "hidden_size"), need(raw, "num_attention_heads")
    kv_heads = raw.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise UserError(f"config.json: num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}")
    if not raw.get("head_dim") and width % heads:
        raise UserError(
            f"config.json: hidden_size={width} is not a multiple of num_attention_heads={heads}, and no head_dim is "
            "given"
        )
    return dict(num_heads=heads, num_kv_heads=kv_heads, head_dim=raw.get("head_dim") or width // heads)


def read_activation(raw: dict[str, Any], default: str) -> str:
    """The MLP activation's name, refused when it is not one we have."""
    name = raw.get("hidden_act", default)
    if name not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act={name!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return name


def read_rope(raw: dict[str, Any], head_dim: int, default_partial: float = 1.0) -> Rope:
    """RoPE settings from v5 `rope_parameters` or v4 `rope_theta` + `rope_scaling` (+ `partial_rotary_factor`)."""
    scaling = dict(raw.get("rope_scaling") or {}) | dict(raw.get("rope_parameters") or {})
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise UserError(f"config.json: rope type {kind!r} is not supported; supported: {', '.join(ROPE_TYPES)}")
    partial = scaling.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or default_partial
    theta = scaling.get("rope_theta") or raw.get("rope_theta") or 10000.0
    max_positions = raw.get("max_position_embeddings") or 2048
    if kind != "default" and not scaling.get("factor"):
        raise UserError(f"config.json: rope type {kind!r} needs a 'factor'")
    return Rope(
        type=kind,
        dim=int(head_dim * partial),
        theta=float(theta),
        max_positions=max_positions,
        factor=float(scaling.get("factor") or 1.0),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_positions=raw.get("original_max_position_embeddings")
        or scaling.get("original_max_position_embeddings")
        or max_positions,
    )
