"""Rotary position embeddings: frequencies, tables of angles, and the rotation of queries and keys.

Axes: B batch row, T position, N head, H head width, R rotated pair of entries. Angles are float32.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.models.config import Rope

Tables = tuple[jax.Array, jax.Array]  # cos and sin, [B, T, R] float32


def inverse_frequencies(rope: Rope, theta: float | jax.Array) -> np.ndarray | jax.Array:
    """Angle per position, of the kind of array that theta is.

    Args:
        rope: its `linear` and `llama3` scaling is applied (llama3: Llama 3.1 model card).
        theta: base of the wavelengths, a number or [...].

    Returns:
        [..., R] float32.
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


def rope_tables(rope: Rope, positions_BT: jax.Array, num_positions: int) -> Tables:
    """cos and sin of every angle.

    They are looked up. If they were computed, XLA would fuse them into the operand of every product, and compute each
    angle again in each layer and head. Dynamic NTK grows theta with the row's length once it passes `max_positions`;
    it does so by row, so that a row does not depend on its neighbours.

    Args:
        rope: the rotary embedding.
        positions_BT: int32.
        num_positions: all positions are below it.

    Returns:
        cos and sin, [B, T, R] float32 each.
    """
    if rope.type == "dynamic":
        length_B = jnp.maximum(jnp.max(positions_BT, axis=1) + 1, rope.max_positions).astype(jnp.float32)
        stretch_B = rope.factor * length_B / rope.max_positions - (rope.factor - 1)
        freq_BR = inverse_frequencies(rope, rope.theta * stretch_B ** (rope.dim / (rope.dim - 2)))
        angles = positions_BT[:, :, None].astype(jnp.float32) * freq_BR[:, None, :]
        return jnp.cos(angles), jnp.sin(angles)
    angles_PR = np.arange(num_positions, dtype=np.float32)[:, None] * inverse_frequencies(rope, rope.theta)
    return jnp.asarray(np.cos(angles_PR))[positions_BT], jnp.asarray(np.sin(angles_PR))[positions_BT]


def rotate(x_BTNH: jax.Array, cos_BTR: jax.Array, sin_BTR: jax.Array) -> jax.Array:
    """Rotate the first 2R entries of each head, paired by halves as Hugging Face stores them; the rest stays."""
    half = cos_BTR.shape[-1]
    cos, sin = cos_BTR[:, :, None, :], sin_BTR[:, :, None, :]
    a, b, rest = jnp.split(x_BTNH, (half, 2 * half), axis=-1)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
    return jnp.concatenate([turned, rest], axis=-1)
