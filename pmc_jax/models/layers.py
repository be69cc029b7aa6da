"""The parts that every family is built from, as its ModelConfig says: norms, projections, attention, MLP, block.

Axes: B batch row, T position, S slot, D width, N query head, K key/value head, H head width, F MLP width. The
statistics of norms are float32.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pmc_jax.models.attention import attend, cached_parts, stream_parts
from pmc_jax.models.config import LayerKind, ModelConfig
from pmc_jax.models.fused_attention import attend_fused, suits
from pmc_jax.models.rope import rotate

ACTIVATION = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}

init_weight = nn.initializers.normal(0.02)


def in_front(x: jax.Array, rank: int) -> jax.Array:
    """x with axes of one in front, `rank` axes in all: no axis appears by itself."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale (Zhang and Sennrich, 2019).

    Attributes:
        eps: added to the mean square.
        axes: how many of the trailing axes are normed together.
        offset: added to the stored scale; Gemma stores scale - 1.
        exact: multiply by the scale in float32, and round to the input's dtype after it.
    """

    eps: float
    axes: int = 1
    offset: float = 0.0
    exact: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.constant(1.0 - self.offset)
        scale = in_front(self.param("scale", init, x.shape[-self.axes :]), x.ndim)
        y = x.astype(jnp.float32)
        axes = tuple(range(-self.axes, 0))
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=axes, keepdims=True) + self.eps)
        if not self.exact:
            return scale * y.astype(x.dtype)
        return ((scale.astype(jnp.float32) + self.offset) * y).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias over the `axes` trailing axes (Ba et al., 2016)."""

    eps: float
    axes: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, axes = x.shape[-self.axes :], tuple(range(-self.axes, 0))
        scale = in_front(self.param("scale", nn.initializers.ones, shape), x.ndim)
        bias = in_front(self.param("bias", nn.initializers.zeros, shape), x.ndim)
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=axes, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=axes, keepdims=True) + self.eps)
        return (y * scale + bias).astype(x.dtype)


NORMS = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "rms_float32": functools.partial(RMSNorm, exact=True),
    "rms_offset": functools.partial(RMSNorm, exact=True, offset=1.0),
}


def project(module: nn.Module, name: str, x: jax.Array, into: tuple[int, ...], bias: bool) -> jax.Array:
    """A linear map over all trailing axes of x, by the module's parameter `name`.

    It is a product of two matrices: XLA's CPU backend copies more-dimensional operands around in the backward pass (a
    tenth of an update). Stacked weights are matrices already (layer_stack.py). A TPU's compiler would take such a
    matrix apart again, to lay the product out by heads; the barrier keeps it from that.

    Args:
        module: gets the parameters `name` [..., *into] and, with a bias, `name`_bias.
        name: of the parameter.
        x: [B, T, ...].
        into: the output's trailing axes.
        bias: whether there is one.

    Returns:
        [B, T, *into].
    """
    B, T, *width = x.shape
    stored = module.get_variable("params", name)
    weight = module.param(name, init_weight, (*width, *into)) if stored is None else stored
    y = x.reshape(B * T, -1) @ weight.reshape(math.prod(width), -1)
    if len(into) > 1 and weight.ndim == 2:
        y = jax.lax.optimization_barrier(y)
    y = y.reshape(B, T, *into)
    return y + in_front(module.param(f"{name}_bias", nn.initializers.zeros, into), y.ndim) if bias else y


@jax.custom_vjp
def product_with_head(hidden: jax.Array, table_VD: jax.Array) -> jax.Array:
    """hidden [..., D] times the head, [..., V] in float32.

    Its gradient is rounded to the operands' dtype before it meets them: otherwise bfloat16 models would multiply the
    largest products of a backward pass in float32. In a `shard_map` both vary over the same axes.
    """
    return jnp.einsum("...d,vd->...v", hidden, table_VD, preferred_element_type=jnp.float32)


def _forward(hidden: jax.Array, table_VD: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product_with_head(hidden, table_VD), (hidden, table_VD)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, table_VD = saved
    gradient = gradient.astype(hidden.dtype)
    return jnp.einsum("...v,vd->...d", gradient, table_VD), jnp.einsum("...v,...d->vd", gradient, hidden)


product_with_head.defvjp(_forward, _backward)


class Attention(nn.Module):
    """Self-attention over the rows' own slots, and over slots that rows share: of a cache, or of a stream.

    Attributes:
        config: of the model.
        kind: of the layer.
        fused: in one kernel where cuDNN has one and no cache is read (fused_attention.py).
    """

    config: ModelConfig
    kind: LayerKind
    fused: bool = False

    @nn.compact
    def __call__(self, x_BTD, tables, mask_BTS, cache, slot, stream):
        c = self.config
        D, N, K, H = c.width, c.num_heads, c.num_kv_heads, c.head_dim
        q_BTNH = project(self, "query", x_BTD, (N, H), c.attention_bias)
        k_BTKH = project(self, "key", x_BTD, (K, H), c.attention_bias)
        v_BTKH = project(self, "value", x_BTD, (K, H), c.attention_bias)
        if c.qk_norm:
            norm = functools.partial(NORMS[c.qk_norm], c.norm_eps, axes=2 if c.qk_norm_full else 1)
            q_BTNH, k_BTKH = norm(name="query_norm")(q_BTNH), norm(name="key_norm")(k_BTKH)
        if tables is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, *tables), rotate(k_BTKH, *tables)
        own = k_BTKH.transpose(0, 2, 3, 1), v_BTKH.transpose(0, 2, 1, 3)
        if cache is None:
            parts = [own] if stream is None else stream_parts(own, stream)
        else:
            parts, own = cached_parts(cache, own, slot)
        if self.fused and cache is None and suits(self.kind, H, q_BTNH.dtype):
            out_BTNH = attend_fused(q_BTNH, parts, mask_BTS, self.kind.scale)
        else:
            out_BTNH = attend(q_BTNH, parts, mask_BTS, self.kind.scale, self.kind.softcap)
        return project(self, "output", out_BTNH, (D,), c.output_bias), own


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x)), or down(activation(up(x))) where it is not gated."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        c = self.config
        activation, into, bias = ACTIVATION[c.activation], (c.mlp_width,), c.mlp_bias
        if c.gated_mlp:
            gate_BTF, up_BTF = project(self, "gate", x_BTD, into, bias), project(self, "up", x_BTD, into, bias)
            return project(self, "down", activation(gate_BTF) * up_BTF, (c.width,), bias)
        return project(self, "down", activation(project(self, "up", x_BTD, into, bias)), (c.width,), bias)


class Block(nn.Module):
    """Attention and MLP, each added to the hidden states; norms before them, after them, or both.

    Its parameters: attention_norm and mlp_norm (`norm` where both read the same), attention, mlp,
    attention_post_norm and mlp_post_norm.
    """

    config: ModelConfig
    kind: LayerKind
    fused: bool = False

    @nn.compact
    def __call__(self, x_BTD, tables, mask_BTS, cache, slot, stream) -> tuple[jax.Array, Any]:
        c = self.config
        attention, mlp = Attention(c, self.kind, self.fused, name="attention"), MLP(c, name="mlp")

        def normed(name: str, x_BTD: jax.Array, used: bool) -> jax.Array:
            return NORMS[c.norm](c.norm_eps, name=name)(x_BTD) if used else x_BTD

        if c.parallel:
            normed_BTD = normed("norm", x_BTD, c.pre_norm)
            out_BTD, own = attention(normed_BTD, tables, mask_BTS, cache, slot, stream)
            return x_BTD + out_BTD + mlp(normed_BTD), own
        out_BTD, own = attention(normed("attention_norm", x_BTD, c.pre_norm), tables, mask_BTS, cache, slot, stream)
        x_BTD = x_BTD + normed("attention_post_norm", out_BTD, c.post_norm)
        out_BTD = mlp(normed("mlp_norm", x_BTD, c.pre_norm))
        return x_BTD + normed("mlp_post_norm", out_BTD, c.post_norm), own
