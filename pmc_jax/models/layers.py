"""The parts both families are built from: norms, RoPE, attention over an explicit cache, the shared decoder.

Axes: B batch row, T position, S cache slot, D width, N query head, K key/value head, G = N / K, H head width, F mlp
width, V vocabulary. Numbers that decide are float32: norm statistics, RoPE angles, attention scores and softmax,
logits.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from pmc_jax.models.config import ModelConfig, Rope

ACTIVATION = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}

# Keys and values of one layer, (k_BKHS, v_BKSH): the axis that a decode step contracts lies where a CPU or GPU matmul
# wants it.
KeyValue = tuple[jax.Array, jax.Array]
# A cache is a list over layers of (prefix, own): keys and values that groups of rows share, G groups of B / G rows
# each, and those of each row.
Cache = list[tuple[KeyValue, KeyValue]]

init_weight = nn.initializers.normal(0.02)


class RMSNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return scale * y.astype(x.dtype)


class LayerNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * scale + bias).astype(x.dtype)


def inverse_frequencies(rope: Rope, theta: float | jax.Array) -> np.ndarray | jax.Array:
    """Angle per position, [..., R/2] float32, of the kind that theta is; linear and llama3 scaling applied (llama3:
    Llama 3.1 model card).
    """
    theta = theta if isinstance(theta, jax.Array) else np.float32(theta)
    freq = np.float32(1.0) / theta[..., None] ** (np.arange(0, rope.dim, 2, dtype=np.float32) / rope.dim)
    if rope.type == "linear":
        return freq / rope.factor
    if rope.type == "llama3":
        wavelength = 2 * np.pi / freq
        low, high = (
            rope.original_max_positions / rope.low_freq_factor,
            rope.original_max_positions / rope.high_freq_factor,
        )
        smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) / (
            rope.high_freq_factor - rope.low_freq_factor
        )
        between = (1 - smooth) * freq / rope.factor + smooth * freq
        return np.where(wavelength > low, freq / rope.factor, np.where(wavelength < high, freq, between)).astype(
            np.float32
        )
    return freq


def rope_tables(rope: Rope, positions_BT: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """cos and sin of every angle, [B, T, R/2] float32. most: positions are below it.

    Looked up: computed, XLA would fuse them into every product's operand, and compute each angle anew in each layer and
    head. Dynamic NTK grows theta with the row's length once it passes `max_positions`; by row, so that a row does not
    depend on its neighbours.
    """
    if rope.type == "dynamic":
        length_B = jnp.maximum(jnp.max(positions_BT, axis=1) + 1, rope.max_positions).astype(jnp.float32)
        stretch_B = rope.factor * length_B / rope.max_positions - (rope.factor - 1)
        freq_BR = inverse_frequencies(rope, rope.theta * stretch_B ** (rope.dim / (rope.dim - 2)))
        angles = positions_BT[:, :, None].astype(jnp.float32) * freq_BR[:, None, :]
        return jnp.cos(angles), jnp.sin(angles)
    angles_PR = np.arange(most, dtype=np.float32)[:, None] * inverse_frequencies(rope, rope.theta)
    return jnp.asarray(np.cos(angles_PR))[positions_BT], jnp.asarray(np.sin(angles_PR))[positions_BT]


def rotate(x_BTNH: jax.Array, cos_BTR: jax.Array, sin_BTR: jax.Array) -> jax.Array:
    """Rotate the first 2R entries of each head (half-split pairing, as Hugging Face stores them); the rest passes
    through.
    """
    half = cos_BTR.shape[-1]
    cos, sin = cos_BTR[:, :, None, :], sin_BTR[:, :, None, :]
    a, b, rest = jnp.split(x_BTNH, (half, 2 * half), axis=-1)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
    return jnp.concatenate([turned, rest], axis=-1)


def attend(q_BTNH: jax.Array, parts: list[KeyValue], mask_BTS: jax.Array) -> jax.Array:
    """Grouped softmax attention, [B, T, N, H], over the slots of all parts side by side; `mask` True = may look.

    A part (k_GKHS, v_GKSH) with fewer groups than rows is shared: group g serves rows g * B/G .. (g+1) * B/G - 1, and
    is read once for all of them. A query that may look nowhere gets an average, not NaN. The sum of weights is divided
    out at the end, over H entries a query instead of S: fewer passes over the scores, forward and backward.
    """
    B, T, N, H = q_BTNH.shape
    K = parts[0][0].shape[1]
    M = N // K * T
    # Query group and position in one axis M, queries first: XLA's CPU backend is 5x slower on the same product in other
    # orders.
    q_BKMH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, M, H)
    ends = np.cumsum([k.shape[-1] for k, _ in parts])[:-1]
    masks = jnp.split(jnp.tile(mask_BTS, (1, N // K, 1))[:, None], ends, axis=-1)
    scores = [_grouped("gkmh,gkhs->gkms", q_BKMH, k, jnp.float32) for k, _ in parts]
    scores = [jnp.where(mask, s * H**-0.5, -1e30) for s, mask in zip(scores, masks)]
    top_BKM1 = jax.lax.stop_gradient(
        functools.reduce(jnp.maximum, [jnp.max(s, axis=-1, keepdims=True) for s in scores])
    )
    weights = [jnp.exp(s - top_BKM1) for s in scores]
    total_BKM1 = sum(jnp.sum(w, axis=-1, keepdims=True) for w in weights)
    sums = [_grouped("gkms,gksh->gkmh", w.astype(q_BTNH.dtype), v, jnp.float32) for w, (_, v) in zip(weights, parts)]
    out_BKMH = (sum(sums) / total_BKM1).astype(q_BTNH.dtype)
    return out_BKMH.reshape(B, K, N // K, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _grouped(equation: str, x_BKMX: jax.Array, shared_GKXY: jax.Array, dtype) -> jax.Array:
    """x times what each group of rows shares, [B, K, M, Y]: a group's rows stand side by side in one matmul."""
    B, K, M, X = x_BKMX.shape
    G = shared_GKXY.shape[0]
    if G == B:
        return jnp.einsum(equation, x_BKMX, shared_GKXY, preferred_element_type=dtype)
    x_GKRX = x_BKMX.reshape(G, B // G, K, M, X).transpose(0, 2, 1, 3, 4).reshape(G, K, -1, X)
    y_GKRY = jnp.einsum(equation, x_GKRX, shared_GKXY, preferred_element_type=dtype)
    return y_GKRY.reshape(G, K, B // G, M, -1).transpose(0, 2, 1, 3, 4).reshape(B, K, M, -1)


def project(module: nn.Module, name: str, x: jax.Array, into: tuple[int, ...], bias: bool) -> jax.Array:
    """x [B, T, ...] times the parameter `name` [..., *into] over all of x's trailing axes, plus `name`_bias where there
    is one: [B, T, *into].

    As a product of two matrices: XLA's CPU backend copies more-dimensional operands around in the backward pass (a
    tenth of an update).
    """
    B, T, *width = x.shape
    weight = module.param(name, init_weight, (*width, *into))
    y = (x.reshape(B * T, -1) @ weight.reshape(math.prod(width), -1)).reshape(B, T, *into)
    return y + module.param(f"{name}_bias", nn.initializers.zeros, into) if bias else y


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows that are blocks of a stream: groups of B / groups rows, each group one after the other. A row looks at the
    first `prefix` positions of its group, at the row before it and at itself (packing.py).
    """

    groups: int
    prefix: int


def stream_parts(own: KeyValue, stream: Stream) -> list[KeyValue]:
    """What the rows of a stream look at: the prefix that a group shares, k_GKHP and v_GKPH, if any; the row before and
    the row, k_BKHS and v_BKSH.
    """
    k_GRKHT, v_GRKTH = (x.reshape(stream.groups, -1, *x.shape[1:]) for x in own)
    k_BKHS = jnp.concatenate([row_before(k_GRKHT), k_GRKHT], axis=4).reshape(own[0].shape[0], *k_GRKHT.shape[2:4], -1)
    v_BKSH = jnp.concatenate([row_before(v_GRKTH), v_GRKTH], axis=3).reshape(
        own[1].shape[0], v_GRKTH.shape[2], -1, v_GRKTH.shape[4]
    )
    near = k_BKHS, v_BKSH
    return [(k_GRKHT[:, 0, ..., : stream.prefix], v_GRKTH[:, 0, :, : stream.prefix]), near] if stream.prefix else [near]


def row_before(x_GR: jax.Array) -> jax.Array:
    """[G, R, ...] -> what stands one row earlier in the group; zeros before the first."""
    return jnp.pad(x_GR[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (x_GR.ndim - 2))


class Attention(nn.Module):
    """Self-attention over the rows' own slots, and over slots that rows share: those of a cache, or of other rows of a
    stream.
    """

    config: ModelConfig
    output_bias: bool

    @nn.compact
    def __call__(self, x_BTD, tables, mask_BTS, cache, where):
        c = self.config
        D, N, K, H = c.width, c.num_heads, c.num_kv_heads, c.head_dim
        q_BTNH = project(self, "query", x_BTD, (N, H), c.attention_bias)
        k_BTKH = project(self, "key", x_BTD, (K, H), c.attention_bias)
        v_BTKH = project(self, "value", x_BTD, (K, H), c.attention_bias)
        if c.qk_norm:
            q_BTNH = LayerNorm(c.norm_eps, name="query_norm")(q_BTNH)
            k_BTKH = LayerNorm(c.norm_eps, name="key_norm")(k_BTKH)
        q_BTNH, k_BTKH = rotate(q_BTNH, *tables), rotate(k_BTKH, *tables)
        own = k_BTKH.transpose(0, 2, 3, 1), v_BTKH.transpose(0, 2, 1, 3)
        if cache is None:
            parts = [own] if where is None else stream_parts(own, where)
        else:
            prefix, (k_BKHC, v_BKCH) = cache
            own = (
                jax.lax.dynamic_update_slice_in_dim(k_BKHC, own[0].astype(k_BKHC.dtype), where, axis=3),
                jax.lax.dynamic_update_slice_in_dim(v_BKCH, own[1].astype(v_BKCH.dtype), where, axis=2),
            )
            parts = [prefix, own]
        out_BTNH = attend(q_BTNH, parts, mask_BTS)
        out_BTD = project(self, "output", out_BTNH, (D,), self.output_bias)
        return out_BTD, own


@functools.partial(jax.jit, static_argnames=("block", "remat"))
def run_block(
    block: nn.Module, remat: bool, params: Any, x_BTD, tables, mask_BTS, cache, where
) -> tuple[jax.Array, KeyValue]:
    """One block by its own parameters. Jitted, so that JAX traces it once and not once a layer; the compiler sees each
    layer all the same.
    """

    def run(params, x_BTD):
        return block.apply({"params": params}, x_BTD, tables, mask_BTS, cache, where)

    return (jax.checkpoint(run) if remat else run)(params, x_BTD)


class Decoder(nn.Module):
    """Embedding, `num_layers` blocks, final norm; `unembed` gives the logits. A family fills in `block` and
    `final_norm`.

    remat: recompute each block in the backward pass instead of keeping its activations.
    activations: sharding of the hidden states between blocks, None = the compiler's choice. Training sets it: with
    weights sharded over `data` the compiler would rather gather the rows of all devices than a layer's weights, and
    every device would work on every row.
    """

    config: ModelConfig
    remat: bool = False
    activations: NamedSharding | None = None

    block = None  # nn.Module class: (config)(x_BTD, tables, mask_BTS, cache, where) -> (x_BTD, own keys and values)
    final_norm = None  # nn.Module class: (eps)(x) -> x
    head_bias = False

    def setup(self):
        c = self.config
        self.embed = self.param("embed", init_weight, (c.vocab_size, c.width))
        self.layers = [self.block(c, name=f"layer_{i}") for i in range(c.num_layers)]
        self.norm = self.final_norm(c.norm_eps, name="final_norm")
        if not c.tied_head:
            self.head = self.param("head", init_weight, (c.vocab_size, c.width))
        if self.head_bias:
            self.head_b = self.param("head_bias", nn.initializers.zeros, (c.vocab_size,))

    def __call__(
        self, tokens_BT, positions_BT, mask_BTS, cache: Cache | None = None, where=None, hidden_layer: int | None = None
    ) -> tuple[jax.Array, list[KeyValue]] | tuple[jax.Array, list[KeyValue], jax.Array]:
        """Final hidden states [B, T, D], and each layer's own keys and values (k_BKHS, v_BKSH).

        hidden_layer: a layer, counted from 0, whose output [B, T, D] is returned as a third value.

        tokens_BT, positions_BT: int32. mask_BTS: bool, which slots each position may look at: those of the prefix, if
        any, and then the rows' own.
        cache: the T new entries are written at own slots `where`, `where` + 1, ..; the updated own parts are returned.
        Without a cache the T tokens are the slots; or the rows are a `Stream`, given as `where`: then the slots are
        those of the prefix, of the row before and of the row itself. Positions are below the number of slots.
        """
        tables = rope_tables(self.config.rope, positions_BT, mask_BTS.shape[-1])
        x_BTD = self.pinned(self.embed[tokens_BT])
        kept, block = [], self.block(self.config, parent=None)
        for i, layer in enumerate(self.layers):
            inputs = x_BTD, tables, mask_BTS, None if cache is None else cache[i], where
            with jax.named_scope(f"layer_{i}"):
                if self.is_initializing():
                    x_BTD, own = layer(*inputs)
                else:
                    x_BTD, own = run_block(block, self.remat, self.variables["params"][f"layer_{i}"], *inputs)
            x_BTD = self.pinned(x_BTD)
            kept.append(own)
            if i == hidden_layer:
                layer_BTD = x_BTD
        return (self.norm(x_BTD), kept) if hidden_layer is None else (self.norm(x_BTD), kept, layer_BTD)

    def pinned(self, x_BTD: jax.Array) -> jax.Array:
        """The same hidden states, laid out as `activations` says."""
        return x_BTD if self.activations is None else jax.lax.with_sharding_constraint(x_BTD, self.activations)

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] in float32 of final hidden states [..., D]."""
        table_VD = self.embed if self.config.tied_head else self.head
        logits = jnp.einsum("...d,vd->...v", hidden, table_VD, preferred_element_type=jnp.float32)
        return logits + self.head_b.astype(jnp.float32) if self.head_bias else logits
