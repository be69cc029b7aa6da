"""Rotary position embeddings: frequencies, tables of angles, and the rotation of queries and keys.

Axes: B batch row, T position, N head, H head width, R rotated pair of entries. Angles are float32.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.models.config import Rope

Tables = tuple[jax.Array, jax.Array]  # cos and sin, [B, T, R] float32


def inverse_frequencies(rope: Rope, theta: float | jax.Array) -> np.ndarray | jax.Array:
    """Angle per position, of the kind of array that theta is.

    Args:
        rope: its linear, llama3 (Llama 3.1 model card) or yarn (Peng et al., 2023) scaling is applied.
        theta: base of the wavelengths, a number or [...].

    Returns:
        [..., R] float32.
    """
    theta = theta if isinstance(theta, jax.Array) else np.float32(theta)
    power_R = np.arange(0, rope.dim, 2, dtype=np.float32) / rope.dim
    freq = np.float32(1.0) / theta[..., None] ** power_R.reshape((1,) * theta.ndim + power_R.shape)
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
    if rope.type == "yarn":
        kept_R = 1 - yarn_ramp(rope)
        return (freq / np.float32(rope.factor) * (1 - kept_R) + freq * kept_R).astype(np.float32)
    return freq


def yarn_ramp(rope: Rope) -> np.ndarray:
    """How far each frequency is stretched, 0 to 1, float32 [R]: linear between beta_fast and beta_slow rotations."""

    def pair_of(rotations: float) -> float:
        """The pair of entries that turns so many times within the original length."""
        turns = rope.original_max_positions / (rotations * 2 * math.pi)
        return rope.dim * math.log(turns) / (2 * math.log(rope.theta))

    low, high = pair_of(rope.beta_fast), pair_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high = high + 0.001 if low == high else high
    return np.clip((np.arange(rope.dim // 2, dtype=np.float32) - low) / (high - low), 0, 1).astype(np.float32)


def _static_tables(rope: Rope, inverse_R: np.ndarray, positions_BT: jax.Array, num_positions: int) -> Tables:
    angles_PR = np.arange(num_positions, dtype=np.float32)[:, None] * inverse_R
    cos_PR, sin_PR = np.cos(angles_PR), np.sin(angles_PR)
    if rope.attention_factor != 1:
        cos_PR, sin_PR = cos_PR * np.float32(rope.attention_factor), sin_PR * np.float32(rope.attention_factor)
    return jnp.asarray(cos_PR)[positions_BT], jnp.asarray(sin_PR)[positions_BT]


def rope_tables(rope: Rope, positions_BT: jax.Array, num_positions: int) -> Tables:
    """cos and sin of every angle.

    They are looked up. If they were computed, XLA would fuse them into the operand of every product, and compute each
    angle again in each layer and head. Dynamic NTK grows theta with the row's length once it passes `max_positions`.
    LongRoPE (Ding et al., 2024) has other wavelengths for rows that are longer than the original length. Both go by
    row, so that a row does not depend on its neighbours.

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
    inverse_R = inverse_frequencies(rope, rope.theta)
    if rope.type != "longrope":
        return _static_tables(rope, inverse_R, positions_BT, num_positions)
    short, long = (
        _static_tables(rope, inverse_R / np.array(factors, np.float32), positions_BT, num_positions)
        for factors in (rope.short_factors, rope.long_factors)
    )
    if num_positions <= rope.original_max_positions:
        return short
    is_long_B11 = (jnp.max(positions_BT, axis=1) >= rope.original_max_positions)[:, None, None]
    return tuple(jnp.where(is_long_B11, y, x) for x, y in zip(short, long))


def rotate(x_BTNH: jax.Array, cos_BTR: jax.Array, sin_BTR: jax.Array) -> jax.Array:
    """Rotate the first 2R entries of each head, paired by halves as Hugging Face stores them; the rest stays."""
    half = cos_BTR.shape[-1]
    cos, sin = cos_BTR[:, :, None, :], sin_BTR[:, :, None, :]
    a, b, rest = jnp.split(x_BTNH, (half, 2 * half), axis=-1)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
    return jnp.concatenate([turned, rest], axis=-1)
