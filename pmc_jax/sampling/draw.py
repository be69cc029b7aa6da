"""One draw from next-token logits: temperature, then top-k, then top-p, in the order of the published runs."""

import dataclasses

import jax
import jax.numpy as jnp

from pmc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How logits become a distribution.

    temperature: 0 = greedy. top_k: keep the k likeliest, 0 = all. top_p: then keep the smallest head of the
    distribution that holds top_p, 1 = all.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise UserError(f"sample.temperature={self.temperature}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sample.top_p={self.top_p}: must be in (0, 1]")
        if self.top_k < 0:
            raise UserError(f"sample.top_k={self.top_k}: must be 0 (off) or more")


GREEDY = SamplingParams(temperature=0.0)


PLAIN_TOP_K = 2**14  # up to this vocabulary one stage is quicker


def group_size(vocab: int, k: int) -> int:
    """About sqrt(V / k), so that both stages sort little. A divisor of V where one is near: then a vocabulary that lies
    on several devices falls into groups that each lie on one, and its logits are never gathered.
    """
    best = max(1, int((vocab / k) ** 0.5))
    near = [g for g in range(max(1, best // 2), 2 * best + 1) if vocab % g == 0]
    return min(near, key=lambda g: abs(g - best)) if near else best


def top_k(logits_BV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The exact k largest logits and their ids, [B, k], largest first.

    Two stages: the k largest lie in the k groups with the largest maxima, so only k * group entries are sorted instead
    of V.
    """
    B, V = logits_BV.shape
    group = group_size(V, k)
    groups = -(-V // group)
    if groups <= k or V < PLAIN_TOP_K:
        return jax.lax.top_k(logits_BV, min(k, V))
    padded_BV = jnp.pad(logits_BV, ((0, 0), (0, groups * group - V)), constant_values=-jnp.inf)
    grouped_BGW = padded_BV.reshape(B, groups, group)
    _, best_BK = jax.lax.top_k(jnp.max(grouped_BGW, axis=-1), k)
    best_BK = jnp.sort(
        best_BK, axis=-1
    )  # candidates stay in vocabulary order, so that equal logits are ranked by id, as in a plain top-k
    candidates_BKW = jnp.take_along_axis(grouped_BGW, best_BK[:, :, None], axis=1)
    values_Bk, at_Bk = jax.lax.top_k(candidates_BKW.reshape(B, -1), k)
    ids_Bk = jnp.take_along_axis(best_BK, at_Bk // group, axis=1) * group + at_Bk % group
    return values_Bk, ids_Bk


def candidates(logits_BV: jax.Array, sampling: SamplingParams) -> tuple[jax.Array, jax.Array]:
    """Logits [B, C] and ids [B, C] of what may be drawn, in the order of ids; -inf where top-p cut. softmax over C is
    the warped distribution.

    By rank, two all but equal logits would change places with any rounding, on another mesh for one, and a draw that
    falls there with them.
    """
    scaled_BV = logits_BV.astype(jnp.float32) / sampling.temperature
    V = scaled_BV.shape[-1]
    if sampling.top_k:
        values_BC, ids_BC = top_k(scaled_BV, min(sampling.top_k, V))
    elif sampling.top_p < 1:
        values_BC, ids_BC = jax.lax.top_k(scaled_BV, V)
    else:
        return scaled_BV, jnp.broadcast_to(jnp.arange(V), scaled_BV.shape)
    if sampling.top_p < 1:
        probs_BC = jax.nn.softmax(values_BC, axis=-1)
        before_BC = jnp.cumsum(probs_BC, axis=-1) - probs_BC
        values_BC = jnp.where((before_BC < sampling.top_p) | (jnp.arange(values_BC.shape[1]) == 0), values_BC, -jnp.inf)
    ids_BC, values_BC = jax.lax.sort((ids_BC, values_BC), num_keys=1)
    return values_BC, ids_BC


def draw(logits_BV: jax.Array, uniform_B2: jax.Array, sampling: SamplingParams) -> jax.Array:
    """One token id per row, int32 [B]. uniform_B2: all that is random in it, two numbers from [0, 1) a row, float32;
    greedy takes none of them.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    return _pick(*candidates(logits_BV, sampling), uniform_B2)


def draw_each(logits_BV: jax.Array, uniform_nB2: jax.Array, sampling: SamplingParams) -> jax.Array:
    """n draws per row, int32 [n, B], each as `draw` makes it; what may be drawn is sorted out once for all of them."""
    if sampling.temperature == 0:
        return jnp.broadcast_to(draw(logits_BV, uniform_nB2[0], sampling), uniform_nB2.shape[:2])
    return jax.vmap(_pick, in_axes=(None, None, 0))(*candidates(logits_BV, sampling), uniform_nB2)


def _pick(values_BC: jax.Array, ids_BC: jax.Array, uniform_B2: jax.Array) -> jax.Array:
    choice_B = by_inversion(values_BC, uniform_B2)
    return jnp.take_along_axis(ids_BC, choice_B[:, None], axis=1)[:, 0].astype(jnp.int32)


def by_inversion(values_BC: jax.Array, uniform_B2: jax.Array) -> jax.Array:
    """A draw from softmax(values) by two uniform numbers a row: first a group of candidates, by the groups' sums, then
    one of the group.

    Noise for every candidate of a whole vocabulary took longer than the decode step it ends; groups also keep the sums
    of small numbers exact.
    """
    B, C = values_BC.shape
    group = max(1, int(C**0.5))
    weights_BC = jnp.exp(values_BC - jnp.max(values_BC, axis=-1, keepdims=True))
    weights_BGW = jnp.pad(weights_BC, ((0, 0), (0, -C % group))).reshape(B, -1, group)

    def invert(weights_BX, uniform_B):
        sums_BX = jnp.where(
            weights_BX > 0, jnp.cumsum(weights_BX, axis=-1), 0.0
        )  # where rounding lets a sum grow, nothing without weight is drawn
        return jnp.argmax(
            sums_BX > (uniform_B * jnp.max(sums_BX, axis=-1))[:, None], axis=-1
        )  # the first one beyond it

    group_B = invert(jnp.sum(weights_BGW, axis=-1), uniform_B2[:, 0])
    within_BW = jnp.take_along_axis(weights_BGW, group_B[:, None, None], axis=1)[:, 0]
    return group_B * group + invert(within_BW, uniform_B2[:, 1])
