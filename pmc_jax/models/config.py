"""What a decoder is made of, read from a Hugging Face `config.json` of either style (transformers 4 or 5)."""

import dataclasses
from typing import Any

from pmc_jax.errors import UserError

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3")


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding of the first `dim` entries of each head.

    Attributes:
        type: how frequencies are scaled, one of ROPE_TYPES.
        dim: entries of a head that are rotated.
        theta: base of the wavelengths.
        max_positions: longest sequence that the model is made for.
        factor: how many times longer than in pretraining.
        low_freq_factor: of llama3, where the stretched band begins.
        high_freq_factor: of llama3, where the kept band ends.
        original_max_positions: longest sequence in pretraining.
    """

    type: str
    dim: int
    theta: float
    max_positions: int
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What may differ from layer to layer.

    Attributes:
        rope: rotary embedding of queries and keys; None = this layer sees no positions.
        window: how many positions a position looks at, itself included; None = all before it.
        scale: factor of the attention scores; None = 1 / sqrt(head width).
        softcap: scores s become softcap * tanh(s / softcap); None = as they are.
    """

    rope: Rope | None
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape and the switches of one decoder; letters are the axis names used throughout.

    Attributes:
        family: name of the architecture, for messages.
        vocab_size: V.
        width: D, of the hidden states.
        mlp_width: F.
        num_heads: N, query heads.
        num_kv_heads: K, key/value heads; divides N.
        head_dim: H.
        layers: the kind of each of the L layers.
        norm_eps: added to the variance in every norm.
        activation: of the MLP, one of ACTIVATIONS.
        tied_head: the embedding is the head.
        norm: kind of the norms, a key of layers.NORMS.
        pre_norm: attention and MLP read normed hidden states.
        post_norm: what attention and MLP give is normed before it is added.
        parallel: one norm feeds attention and MLP side by side, as in Phi.
        gated_mlp: the MLP multiplies two projections.
        attention_bias: of query, key and value.
        output_bias: of the attention's output.
        mlp_bias: of the MLP's projections.
        head_bias: of the logits.
        qk_norm: kind of the norms of queries and keys, a key of layers.NORMS; empty = none.
        qk_norm_full: these norms go over all heads together, not over each.
        embed_scale: factor of the embedding, in the weights' dtype; None = 1.
        logit_softcap: logits l become softcap * tanh(l / softcap); None = as they are.
    """

    family: str
    vocab_size: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[LayerKind, ...]
    norm_eps: float
    activation: str
    tied_head: bool
    norm: str = "rms"
    pre_norm: bool = True
    post_norm: bool = False
    parallel: bool = False
    gated_mlp: bool = True
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: str = ""
    qk_norm_full: bool = False
    embed_scale: float | None = None
    logit_softcap: float | None = None

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def ropes(self) -> tuple[Rope, ...]:
        """The different rotary embeddings of the layers."""
        return tuple(dict.fromkeys(kind.rope for kind in self.layers if kind.rope))

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


def read_sizes(raw: dict[str, Any]) -> dict[str, int]:
    """The sizes of a ModelConfig that all families call the same; head counts and width must divide."""
    width, heads = need(raw, "hidden_size"), need(raw, "num_attention_heads")
    kv_heads = raw.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise UserError(f"config.json: num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}")
    if not raw.get("head_dim") and width % heads:
        raise UserError(
            f"config.json: hidden_size={width} is not a multiple of num_attention_heads={heads}, and no head_dim is "
            "given"
        )
    return dict(
        vocab_size=need(raw, "vocab_size"),
        width=width,
        mlp_width=need(raw, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=raw.get("head_dim") or width // heads,
    )


def read_activation(raw: dict[str, Any], default: str, key: str = "hidden_act") -> str:
    """The MLP activation's name, refused when it is not one we have."""
    name = raw.get(key) or default
    if name not in ACTIVATIONS:
        raise UserError(f"config.json: {key}={name!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
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


def same_layers(raw: dict[str, Any], kind: LayerKind) -> tuple[LayerKind, ...]:
    """`num_hidden_layers` layers of one kind."""
    return (kind,) * need(raw, "num_hidden_layers")
