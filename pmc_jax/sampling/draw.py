"""One draw from next-token logits: temperature, then top-k, then top-p, in the order of the published runs.

Axes: B row, V vocabulary, k or C candidate tokens, G group, W within a group, n draws.
"""

import jax
import jax.numpy as jnp

from pmc_jax.sampling.params import SamplingStrategy

PLAIN_TOP_K = 2**14  # up to this vocabulary one stage is quicker


def draw(logits_BV: jax.Array, uniform_B2: jax.Array, strategy: SamplingStrategy) -> jax.Array:
    """One token a row.

    Args:
        logits_BV: next-token logits, any float dtype.
        uniform_B2: float32, two numbers from [0, 1) a row: all that is random in the draw. Greedy uses none of them.
        strategy: temperature, top-k and top-p; static under `jax.jit`.

    Returns:
        Token ids, int32 [B].
    """
    if strategy.temperature == 0:
        return jnp.argmax(without_banned(logits_BV, strategy), axis=-1).astype(jnp.int32)
    return _pick(*candidates(logits_BV, strategy), uniform_B2)


def draw_each(logits_BV: jax.Array, uniform_nB2: jax.Array, strategy: SamplingStrategy) -> jax.Array:
    """n tokens a row, each as `draw` makes it. What may be drawn is sorted out once for all of them.

    Args:
        logits_BV: next-token logits.
        uniform_nB2: float32, two numbers from [0, 1) a draw.
        strategy: as in `draw`.

    Returns:
        Token ids, int32 [n, B].
    """
    if strategy.temperature == 0:
        return jnp.broadcast_to(draw(logits_BV, uniform_nB2[0], strategy), uniform_nB2.shape[:2])
    return jax.vmap(_pick, in_axes=(None, None, 0))(*candidates(logits_BV, strategy), uniform_nB2)


def without_banned(logits_BV: jax.Array, strategy: SamplingStrategy) -> jax.Array:
    """The logits, -inf for tokens that are never drawn."""
    if not strategy.banned:
        return logits_BV
    banned_V = jnp.isin(jnp.arange(logits_BV.shape[-1]), jnp.array(strategy.banned))
    return jnp.where(banned_V[None], -jnp.inf, logits_BV)


def candidates(logits_BV: jax.Array, strategy: SamplingStrategy) -> tuple[jax.Array, jax.Array]:
    """The tokens that may be drawn. softmax over their logits is the distribution that is drawn from.

    They come in the order of their ids. In the order of their rank, two nearly equal logits would change places with
    any rounding, such as that of another mesh, and a draw that falls there would change with them.

    Args:
        logits_BV: next-token logits.
        strategy: with a temperature above 0.

    Returns:
        Logits float32 [B, C], -inf where top-p cuts, and ids int32 [B, C].
    """
    scaled_BV = without_banned(logits_BV, strategy).astype(jnp.float32) / strategy.temperature
    V = scaled_BV.shape[-1]
    if strategy.top_k:
        values_BC, ids_BC = top_k(scaled_BV, min(strategy.top_k, V))
    elif strategy.top_p < 1:
        values_BC, ids_BC = jax.lax.top_k(scaled_BV, V)
    else:
        return scaled_BV, jnp.broadcast_to(jnp.arange(V), scaled_BV.shape)
    if strategy.top_p < 1:
        probs_BC = jax.nn.softmax(values_BC, axis=-1)
        before_BC = jnp.cumsum(probs_BC, axis=-1) - probs_BC
        first_BC = jnp.arange(values_BC.shape[1])[None] == 0
        values_BC = jnp.where((before_BC < strategy.top_p) | first_BC, values_BC, -jnp.inf)
    ids_BC, values_BC = jax.lax.sort((ids_BC, values_BC), num_keys=1)
    return values_BC, ids_BC


def top_k(logits_BV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The exact k largest logits, largest first.

    In two stages: the k largest lie in the k groups with the largest maxima. Only k * group entries are sorted, and not
    all V.

    Returns:
        Logits [B, k], and their ids [B, k].
    """
    B, V = logits_BV.shape
    group = group_size(V, k)
    groups = -(-V // group)
    if groups <= k or V < PLAIN_TOP_K:
        return jax.lax.top_k(logits_BV, min(k, V))
    padded_BV = jnp.pad(logits_BV, ((0, 0), (0, groups * group - V)), constant_values=-jnp.inf)
    grouped_BGW = padded_BV.reshape(B, groups, group)
    _, best_Bk = jax.lax.top_k(jnp.max(grouped_BGW, axis=-1), k)
    # In the order of the vocabulary: equal logits are then ranked by id, as in a plain top-k.
    best_Bk = jnp.sort(best_Bk, axis=-1)
    entries_BkW = jnp.take_along_axis(grouped_BGW, best_Bk[:, :, None], axis=1)
    values_Bk, index_Bk = jax.lax.top_k(entries_BkW.reshape(B, -1), k)
    ids_Bk = jnp.take_along_axis(best_Bk, index_Bk // group, axis=1) * group + index_Bk % group
    return values_Bk, ids_Bk


def group_size(vocab: int, k: int) -> int:
    """About sqrt(V / k), so that both stages sort little.

    A divisor of V where one is near. A vocabulary that lies on several devices then falls into groups that each lie on
    one device, and its logits are never gathered.
    """
    best = max(1, int((vocab / k) ** 0.5))
    divisors = [g for g in range(max(1, best // 2), 2 * best + 1) if vocab % g == 0]
    return min(divisors, key=lambda g: abs(g - best)) if divisors else best


def _pick(values_BC: jax.Array, ids_BC: jax.Array, uniform_B2: jax.Array) -> jax.Array:
    choice_B = draw_by_inversion(values_BC, uniform_B2)
    return jnp.take_along_axis(ids_BC, choice_B[:, None], axis=1)[:, 0].astype(jnp.int32)


def draw_by_inversion(values_BC: jax.Array, uniform_B2: jax.Array) -> jax.Array:
    """A draw from softmax(values) by inversion of the distribution function, in two stages.

    The first number picks a group of candidates by the groups' sums, the second one a candidate of the group. Noise for
    every token of a vocabulary (the Gumbel trick) took longer than the decode step that it ends. Groups also keep the
    sums of small numbers exact.

    Returns:
        Indices into C, [B].
    """
    B, C = values_BC.shape
    group = max(1, int(C**0.5))
    weights_BC = jnp.exp(values_BC - jnp.max(values_BC, axis=-1, keepdims=True))
    weights_BGW = jnp.pad(weights_BC, ((0, 0), (0, -C % group))).reshape(B, -1, group)

    def invert(weights_BX, uniform_B):
        # Where rounding lets a sum grow, nothing without weight is drawn.
        sums_BX = jnp.where(weights_BX > 0, jnp.cumsum(weights_BX, axis=-1), 0.0)
        return jnp.argmax(sums_BX > (uniform_B * jnp.max(sums_BX, axis=-1))[:, None], axis=-1)  # the first one beyond

    group_B = invert(jnp.sum(weights_BGW, axis=-1), uniform_B2[:, 0])
    within_BW = jnp.take_along_axis(weights_BGW, group_B[:, None, None], axis=1)[:, 0]
    return group_B * group + invert(within_BW, uniform_B2[:, 1])
