"""Attention over an explicit cache, and which slots a position looks at.

Axes: B batch row, T position, S slot, N query head, K key/value head, H head width, G group of rows. Scores and softmax
are float32.

The rows' slots are laid out in three ways:
    plain     the row's own T positions
    stream    the prefix that a group of rows shares | the row before | the row (data/packing.py)
    cache     the prompt and its draft | the row's own tokens (sampling/decode.py) | and, where the cache is only read,
              the tokens that are read
In each of them the slots that a position may look at are given as a mask. A layer's window then keeps those whose
position is close enough (`keep_window`), which is decided in this file alone.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Keys and values of one layer, (k_BKHS, v_BKSH): the axis that a decode step contracts lies where a CPU or GPU matmul
# wants it.
KeyValue = tuple[jax.Array, jax.Array]


class SlotsFirst(NamedTuple):
    """Keys and values of one layer, or of stacked ones, in a cache that the layer only reads: the slots come before the
    head width. An accelerator then writes a slot without touching the others (docs/decisions.md).
    """

    keys: jax.Array  # [.., B, K, S, H]
    values: jax.Array  # [.., B, K, S, H]


# A cache is a list over layers of (prefix, own): keys and values that groups of rows share, G groups of B / G rows
# each, and those of each row. Either both are a KeyValue, or both SlotsFirst. A stack of layers that are scanned is one
# entry, with its layers in front.
Cache = list[tuple[KeyValue, KeyValue] | tuple[SlotsFirst, SlotsFirst]]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows that are blocks of a stream: a row looks at its group's prefix, at the row before it and at itself.

    Attributes:
        groups: groups of B / groups rows, each group one after the other.
        prefix: how many of the first positions of a group all its rows look at.
    """

    groups: int
    prefix: int


def causal_mask(mask_BT: jax.Array) -> jax.Array:
    """[B, T, T]: each position looks at itself and at real tokens before it."""
    T = mask_BT.shape[1]
    return jnp.tril(jnp.ones((1, T, T), bool)) & mask_BT[:, None, :]


def positions_from_mask(mask_BT: jax.Array) -> jax.Array:
    """Position of each token among its row's real ones, int32 [B, T]; 0 on padding before them."""
    return jnp.maximum(jnp.cumsum(mask_BT, axis=1) - 1, 0).astype(jnp.int32)


def row_before(x_GR: jax.Array) -> jax.Array:
    """[G, R, ...] -> what stands one row earlier in the group; zeros before the first."""
    return jnp.pad(x_GR[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (x_GR.ndim - 2))


def slot_positions(
    positions_BT: jax.Array, mask_BTS: jax.Array, stream: Stream | None = None, cached: bool = False
) -> jax.Array:
    """The position of the token in each slot, int32 [B, S]; any number in slots that nothing looks at.

    Args:
        positions_BT: of the tokens that are read.
        mask_BTS: which slots each of them may look at. With a cache, the last one looks at all tokens there are.
        stream: how the rows hang together, if they do.
        cached: the slots are those of a cache.
    """
    if cached:
        return positions_from_mask(mask_BTS[:, -1])
    if stream is None:
        return positions_BT
    B, T = positions_BT.shape
    positions_GRT = positions_BT.reshape(stream.groups, -1, T)
    prefix_GRP = jnp.broadcast_to(positions_GRT[:, :1, : stream.prefix], (*positions_GRT.shape[:2], stream.prefix))
    return jnp.concatenate([prefix_GRP, row_before(positions_GRT), positions_GRT], axis=-1).reshape(B, -1)


def keep_window(
    mask_BTS: jax.Array, positions_BT: jax.Array, slot_positions_BS: jax.Array, window: int | None
) -> jax.Array:
    """The mask without the slots whose token stands `window` positions or more before the one that looks."""
    if window is None or window >= mask_BTS.shape[-1]:
        return mask_BTS
    return mask_BTS & (positions_BT[:, :, None] - slot_positions_BS[:, None, :] < window)


def attend(
    q_BTNH: jax.Array,
    parts: list[KeyValue],
    mask_BTS: jax.Array,
    scale: float | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Grouped softmax attention over the slots of all parts side by side.

    A part with fewer groups than rows is shared: group g serves rows g * B/G .. (g+1) * B/G - 1, and is read once for
    all of them. A query that may look nowhere gets an average, not NaN. The sum of weights is divided out at the end,
    over H entries a query instead of S: this takes fewer passes over the scores, forward and backward.

    Args:
        q_BTNH: queries.
        parts: keys and values, (k_GKHS, v_GKSH) each.
        mask_BTS: bool, True = may look.
        scale: factor of the scores; None = 1 / sqrt(H).
        softcap: scores s become softcap * tanh(s / softcap).

    Returns:
        [B, T, N, H], of the queries' dtype.
    """
    B, T, N, H = q_BTNH.shape
    K = parts[0][0].shape[1]
    M = N // K * T
    scale = H**-0.5 if scale is None else scale
    # Query group and position in one axis M, queries first: XLA's CPU backend is 5x slower on the same product in other
    # orders.
    q_BKMH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, M, H)
    groups = [k.shape[0] for k, _ in parts]
    ends = np.cumsum([k.shape[-1] for k, _ in parts])[:-1]
    masks = jnp.split(jnp.tile(mask_BTS, (1, N // K, 1))[:, None], ends, axis=-1)
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    scores = [product("gkrh,gkhs->gkrs", in_groups(q_BKMH, G), k) * scale for G, (k, _) in zip(groups, parts)]
    if softcap is not None:
        scores = [softcap * jnp.tanh(s / softcap) for s in scores]
    scores = [jnp.where(in_groups(mask, G), s, -1e30) for G, s, mask in zip(groups, scores, masks)]
    tops = [in_rows(jnp.max(s, axis=-1, keepdims=True), B) for s in scores]
    top_BKM1 = jax.lax.stop_gradient(functools.reduce(jnp.maximum, tops))
    weights = [jnp.exp(s - in_groups(top_BKM1, G)) for G, s in zip(groups, scores)]
    total_BKM1 = sum(in_rows(jnp.sum(w, axis=-1, keepdims=True), B) for w in weights)
    sums = [product("gkrs,gksh->gkrh", w.astype(q_BTNH.dtype), v) for w, (_, v) in zip(weights, parts)]
    out_BKMH = (sum(in_rows(x, B) for x in sums) / total_BKM1).astype(q_BTNH.dtype)
    return out_BKMH.reshape(B, K, N // K, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def in_groups(x_BKMX: jax.Array, groups: int) -> jax.Array:
    """[B, K, M, X] -> [G, K, R, X]: what belongs to the rows of a group stands side by side, so that what they share is
    read once for all of them, and scores are not turned round.
    """
    B, K, M, X = x_BKMX.shape
    if groups == B:
        return x_BKMX
    return x_BKMX.reshape(groups, B // groups, K, M, X).transpose(0, 2, 1, 3, 4).reshape(groups, K, -1, X)


def in_rows(x_GKRX: jax.Array, rows: int) -> jax.Array:
    """[G, K, R, X] -> [B, K, M, X]: the inverse of `in_groups`."""
    G, K, R, X = x_GKRX.shape
    if G == rows:
        return x_GKRX
    return x_GKRX.reshape(G, K, rows // G, -1, X).transpose(0, 2, 1, 3, 4).reshape(rows, K, -1, X)


def slots_first(own: KeyValue) -> SlotsFirst:
    """Keys and values for a cache that is only read."""
    return SlotsFirst(jnp.swapaxes(own[0], -1, -2), own[1])


def cached_parts(cache: tuple, own: KeyValue, slot: jax.Array) -> tuple[list[KeyValue], KeyValue | SlotsFirst]:
    """What new tokens look at beside a cache.

    Args:
        cache: (prefix, own) of one layer.
        own: keys and values of the tokens.
        slot: where the first of them belongs.

    Returns:
        The parts, and what the layer gives back: where the cache is only read, the tokens' keys and values, as they
        will lie in it; otherwise the cache's own part with them written into it, which the tokens then look at.
    """
    prefix, before = cache
    if isinstance(before, SlotsFirst):
        # XLA takes the transposition into the product.
        return [*((jnp.swapaxes(keys, -1, -2), values) for keys, values in cache), own], slots_first(own)
    k_BKHC, v_BKCH = before
    written = (
        jax.lax.dynamic_update_slice_in_dim(k_BKHC, own[0].astype(k_BKHC.dtype), slot, axis=3),
        jax.lax.dynamic_update_slice_in_dim(v_BKCH, own[1].astype(v_BKCH.dtype), slot, axis=2),
    )
    return [prefix, written], written


def stream_parts(own: KeyValue, stream: Stream) -> list[KeyValue]:
    """What the rows of a stream look at.

    Args:
        own: keys and values of each row, k_BKHT and v_BKTH.
        stream: how the rows hang together.

    Returns:
        The prefix that a group shares, k_GKHP and v_GKPH, if any; the row before and the row, k_BKHS and v_BKSH.
    """
    k_GRKHT, v_GRKTH = (x.reshape(stream.groups, -1, *x.shape[1:]) for x in own)
    k_BKHS = jnp.concatenate([row_before(k_GRKHT), k_GRKHT], axis=4).reshape(own[0].shape[0], *k_GRKHT.shape[2:4], -1)
    v_BKSH = jnp.concatenate([row_before(v_GRKTH), v_GRKTH], axis=3).reshape(
        own[1].shape[0], v_GRKTH.shape[2], -1, v_GRKTH.shape[4]
    )
    near = k_BKHS, v_BKSH
    return [(k_GRKHT[:, 0, ..., : stream.prefix], v_GRKTH[:, 0, :, : stream.prefix]), near] if stream.prefix else [near]
