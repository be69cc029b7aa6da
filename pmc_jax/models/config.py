"""What a decoder is made of, read from a Hugging Face `config.json` of either style (transformers 4 or 5)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pmc_jax.errors import UserError

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers, as `layer_types` calls them


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
        attention_factor: cos and sin are multiplied with it.
        beta_fast: of yarn, rotations within the original length from which on a frequency is kept.
        beta_slow: of yarn, rotations up to which a frequency is stretched.
        truncate: of yarn, whether the bounds of the band between are whole numbers.
        short_factors: of longrope, a factor of each wavelength, for rows of at most the original length.
        long_factors: of longrope, the same for longer rows.
    """

    type: str
    dim: int
    theta: float
    max_positions: int
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    @property
    def max_fixed_length(self) -> int | None:
        """Tokens up to which a row's angles do not depend on its length; None = they never do."""
        return {"dynamic": self.max_positions, "longrope": self.original_max_positions}.get(self.type)


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


def read_layer_types(raw: dict[str, Any], default: Sequence[str]) -> list[str]:
    """FULL or SLIDING for each layer.

    Args:
        raw: `config.json`; its `layer_types` are taken where it has them.
        default: what is repeated over the layers otherwise.

    Raises:
        UserError: a kind of layer that is neither, or too few of them.
    """
    count = need(raw, "num_hidden_layers")
    types = (raw.get("layer_types") or [default[i % len(default)] for i in range(count)])[:count]
    unknown = sorted({str(t) for t in types} - {FULL, SLIDING})
    if unknown:
        raise UserError(f"config.json: layer_types has {', '.join(unknown)}; supported: {FULL}, {SLIDING}")
    if len(types) < count:
        raise UserError(f"config.json: layer_types has {len(types)} entries; num_hidden_layers={count}")
    return types


def same_layers(raw: dict[str, Any], kind: LayerKind) -> tuple[LayerKind, ...]:
    """`num_hidden_layers` layers of one kind."""
    return (kind,) * need(raw, "num_hidden_layers")


def layers_by_type(types: Sequence[str], kinds: dict[str, LayerKind]) -> tuple[LayerKind, ...]:
    """The kind of each layer, by its type."""
    return tuple(kinds[t] for t in types)
