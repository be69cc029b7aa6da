"""Attention in one kernel, by cuDNN: scores stay on the chip. For GPUs, where no cache is read; the formula is that of
`attention.attend`.

Axes: as in attention.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pmc_jax.distributed.device_kind import DeviceKind, device_kind
from pmc_jax.errors import first_line
from pmc_jax.models.attention import KeyValue, attend
from pmc_jax.models.config import LayerKind, ModelConfig
from pmc_jax.tracking.log import LOG

WIDEST = 128  # head width that cuDNN takes on every card that it knows; some take wider ones
IMPLEMENTATION = "cudnn"
TOLERANCE = 0.05  # between gradients in bfloat16, as a share of the largest


def suits(kind: LayerKind, head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether cuDNN has a kernel for such a layer: 16-bit numbers, no soft cap."""
    return kind.softcap is None and head_dim <= WIDEST and head_dim % 8 == 0 and jnp.dtype(dtype).itemsize == 2


def attend_fused(
    q_BTNH: jax.Array, parts: list[KeyValue], mask_BTS: jax.Array, scale: float | None = None
) -> jax.Array:
    """`attention.attend` without a soft cap, by `jax.nn.dot_product_attention`.

    Args:
        q_BTNH: queries.
        parts: keys and values, (k_GKHS, v_GKSH) each. Those that a group of rows shares are written once a row.
        mask_BTS: bool, True = may look.
        scale: factor of the scores; None = 1 / sqrt(H).

    Returns:
        [B, T, N, H], of the queries' dtype.
    """
    B = q_BTNH.shape[0]
    keys = [jnp.repeat(k.transpose(0, 3, 1, 2), B // k.shape[0], axis=0) for k, _ in parts]
    values = [jnp.repeat(v.transpose(0, 2, 1, 3), B // v.shape[0], axis=0) for _, v in parts]
    k_BSKH, v_BSKH = jnp.concatenate(keys, axis=1), jnp.concatenate(values, axis=1)
    if k_BSKH.shape[1] % 2:  # cuDNN takes masks of an even number of slots
        k_BSKH, v_BSKH = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (k_BSKH, v_BSKH))
        mask_BTS = jnp.pad(mask_BTS, ((0, 0), (0, 0), (0, 1)))
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None], scale=scale, implementation=IMPLEMENTATION
    )


def usable_kind(mesh: Mesh, config: ModelConfig) -> DeviceKind:
    """The kind of a mesh's devices, without fused attention where they cannot run it for such a model."""
    kind = device_kind(mesh)
    used = kind.fused_attention and any(suits(layer, config.head_dim, jnp.bfloat16) for layer in config.layers)
    if used and (reason := why_not(mesh, config)):
        LOG.warning("attention is not one kernel here, which takes more memory and time: cuDNN: %s", reason)
        return kind._replace(fused_attention=False)
    return kind


@functools.lru_cache
def why_not(mesh: Mesh, config: ModelConfig) -> str:
    """Why the devices do not run such a kernel, forward and backward; empty where they do. It is tried once a process
    and model, on arrays of its heads: what a card takes depends on its driver and on cuDNN's version.
    """
    B, T, S, H = mesh.shape["data"], 32, 64, config.head_dim
    sharding = NamedSharding(mesh, PartitionSpec("data", None, "model", None))
    rng = np.random.default_rng(0)

    def drawn(length: int, heads: int) -> jax.Array:
        values = rng.standard_normal((B, length, heads, H), np.float32).astype(jnp.bfloat16)
        return jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])

    q_BTNH, k_BSKH, v_BSKH = drawn(T, config.num_heads), drawn(S, config.num_kv_heads), drawn(S, config.num_kv_heads)
    mask_TS = np.tril(np.ones((T, S), bool), S - T)
    mask_TS[0] = False  # padding looks nowhere
    mask_BTS = np.broadcast_to(mask_TS, (B, T, S))

    def gradients(attention):
        def total(q_BTNH, k_BSKH, v_BSKH):
            parts = [(k_BSKH.transpose(0, 2, 3, 1), v_BSKH.transpose(0, 2, 1, 3))]
            return jnp.sum(jnp.square(attention(q_BTNH, parts, mask_BTS)[:, 1:].astype(jnp.float32)))

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(q_BTNH, k_BSKH, v_BSKH)

    def apart(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(x.astype(jnp.float32) - y.astype(jnp.float32))) / jnp.max(jnp.abs(y))

    try:
        pairs = zip(gradients(attend_fused), gradients(attend))
        largest = max(float(jax.jit(apart)(x, y)) for x, y in pairs)
    except (NotImplementedError, RuntimeError, ValueError) as error:  # JAX and XLA refuse with each of them
        return first_line(error)
    return "" if largest < TOLERANCE else f"its gradients are {largest:.2g} of the largest away"
