"""Prefill: each question's prompt and draft are read once, and its n rows draw along the draft.

A draft is an answer that the rows of a question may well begin with, such as the original one. Each row samples at
every position of the draft in one pass. As long as a row draws what the draft says, it accepts these tokens, and they
need no decode step. The row is the same as without a draft, since its random numbers are fixed beforehand (speculative
decoding: Leviathan et al., 2023).

Axes: Q question, n rows of a question, B = Q * n row, P prompt position, A draft slot, S = P + A - 1 position that is
read, K key/value head, H head width, D width, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from pmc_jax.models import Decoder, KeyValue
from pmc_jax.models.attention import SlotsFirst, causal_mask, positions_from_mask, slots_first
from pmc_jax.sampling.decode import DecodeState, pad_slots
from pmc_jax.sampling.draw import draw_each
from pmc_jax.sampling.params import SamplingStrategy
from pmc_jax.sampling.prompts import Prompts


class PrefillPlan(NamedTuple):
    """The shape of a prefill program; static.

    Attributes:
        num_samples: n, rows of each question.
        slots: decode-cache slots at first.
        shards: data shards.
        parts: each shard reads its questions in so many equal parts, one after the other.
        cache_sharding: where keys and values lie; None on one device. Empty slots come from nowhere, so that without it
            the compiler would give each device all heads of them.
    """

    num_samples: int
    slots: int
    shards: int = 1
    parts: int = 1
    cache_sharding: NamedSharding | None = None


@functools.partial(jax.jit, static_argnames=("model", "strategy", "end_tokens", "plan"))
def prefill(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    alive_Q: jax.Array,
    uniform_BA2: jax.Array,
    *,
    strategy: SamplingStrategy,
    end_tokens: tuple[int, ...],
    plan: PrefillPlan,
) -> tuple[DecodeState, jax.Array]:
    """Read each prompt and its draft once, and draw each row's tokens up to the first one that is not the draft's.

    Args:
        model: static.
        params: laid out for decoding.
        prompts: of Q questions.
        alive_Q: bool, False on questions that only fill the batch up. Their rows are done from the start.
        uniform_BA2: float32, the random numbers of the first A tokens of each row.
        strategy: what is drawn from; static.
        end_tokens: ids that end an answer; static.
        plan: static.

    Returns:
        The state with one decoded token a row, and how many tokens each row accepts of its draft, int32 [B].
    """
    drafts_BA, alive_B, mask_BP = (
        jnp.repeat(x, plan.num_samples, axis=0) for x in (prompts.drafts_QA, alive_Q, prompts.mask_QP)
    )
    B, A = drafts_BA.shape
    uniform_QnA2 = uniform_BA2.reshape(-1, plan.num_samples, A, 2)
    drawn_QnA, prompt_cache = read_prompts(model, params, prompts, alive_Q, uniform_QnA2, strategy, plan)
    accepted_B, first_B, ended_B = along_drafts(drawn_QnA.reshape(B, A), drafts_BA, end_tokens)
    decode_cache = empty_decode_cache(prompt_cache, B, plan.slots)
    if plan.cache_sharding is not None:
        prompt_cache, decode_cache = pin_cache((prompt_cache, decode_cache), plan.cache_sharding)
    state = DecodeState(
        tokens_BC=jnp.zeros((B, plan.slots), jnp.int32).at[:, 0].set(first_B),
        step=jnp.int32(1),
        done_B=ended_B | ~alive_B,
        mask_BS=jnp.concatenate([mask_BP, jnp.arange(A - 1)[None] < accepted_B[:, None]], axis=1),
        prompt_cache=prompt_cache,
        decode_cache=decode_cache,
    )
    return state, accepted_B


def along_drafts(
    drawn_BA: jax.Array, drafts_BA: jax.Array, end_tokens: tuple[int, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What rows have that drew after the prompt and after each token of their draft.

    Returns:
        How many tokens of the draft each row accepts, int32 [B]; the first token that is not the draft's, int32 [B];
        whether the row has an end token, bool [B].
    """
    ends = np.array(end_tokens)
    accepts_BA = jnp.cumprod(drawn_BA == drafts_BA, axis=1, dtype=jnp.int32)
    accepted_B = jnp.sum(accepts_BA, axis=1)
    last = drawn_BA.shape[1] - 1
    first_B = jnp.take_along_axis(drawn_BA, jnp.minimum(accepted_B, last)[:, None], axis=1)[:, 0]
    ended_B = jnp.any((accepts_BA > 0) & jnp.isin(drafts_BA, ends), axis=1) | jnp.isin(first_B, ends)
    return accepted_B, first_B, ended_B


def empty_decode_cache(prompt_cache: list[KeyValue], rows: int, slots: int) -> list[KeyValue]:
    """Free slots for the decoded tokens of so many rows, in the heads and the dtype of the prompt cache."""

    def no_slots(x, axis):
        *layers, _, heads, _, _ = x.shape
        shape = [*layers, rows, heads, *x.shape[-2:]]
        shape[axis] = 0
        return jnp.zeros(shape, x.dtype)

    def empty(entry):
        if isinstance(entry, SlotsFirst):
            return SlotsFirst(*(no_slots(x, -2) for x in entry))
        return no_slots(entry[0], -1), no_slots(entry[1], -2)

    return pad_slots([empty(entry) for entry in prompt_cache], slots)


def pin_cache(cache: Any, sharding: NamedSharding) -> Any:
    """The same keys and values, laid out as `sharding` says of a layer's."""

    def pin(x):
        spec = PartitionSpec(*[None] * (x.ndim - 4), *sharding.spec)
        return jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, spec))

    return jax.tree.map(pin, cache)


def read_prompts(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    alive_Q: jax.Array,
    uniform_QnA2: jax.Array,
    strategy: SamplingStrategy,
    plan: PrefillPlan,
) -> tuple[jax.Array, list[KeyValue]]:
    """What each row draws after the prompt and after each token of the draft, and the prompt cache.

    Each shard reads part by part. Parts behind the last alive question are not read: theirs are zeros.

    Returns:
        Token ids int32 [Q, n, A], and keys and values per layer, (k_QKHS, v_QKSH), or SlotsFirst.
    """
    shards, parts = plan.shards, plan.parts

    def split(x):
        return x.reshape(shards, parts, -1, *x.shape[1:])

    before_QA = prompts.drafts_QA[:, :-1]
    tokens_QS = jnp.concatenate([prompts.tokens_QP, before_QA], axis=1)
    mask_QS = jnp.concatenate([prompts.mask_QP, before_QA >= 0], axis=1)
    tokens, mask, alive, uniform = map(split, (jnp.maximum(tokens_QS, 0), mask_QS, alive_Q, uniform_QnA2))
    used = jnp.max(jnp.where(jnp.any(alive, axis=(0, 2)), jnp.arange(parts) + 1, 0))
    n, A = uniform_QnA2.shape[1:3]

    def read(part):
        tokens_QS, mask_QS, uniform_QnA2 = (x[:, part].reshape(-1, *x.shape[3:]) for x in (tokens, mask, uniform))
        hidden_QSD, cache = model.apply(
            {"params": params}, tokens_QS, positions_from_mask(mask_QS), causal_mask(mask_QS)
        )
        hidden_RD = hidden_QSD[:, -A:].reshape(-1, hidden_QSD.shape[-1])
        logits_RV = model.apply({"params": params}, hidden_RD, method="unembed")
        drawn_nR = draw_each(logits_RV, uniform_QnA2.transpose(1, 0, 2, 3).reshape(n, -1, 2), strategy)
        drawn_QnA = drawn_nR.reshape(n, -1, A).transpose(1, 0, 2)
        return drawn_QnA, [slots_first(entry) for entry in cache] if model.scan else cache

    if parts == 1:
        return read(0)

    def in_parts(shape):  # rows of a part -> (shards, parts, rows of a part and shard)
        axis = rows_axis(shape)
        return *shape[:axis], shards, parts, shape[axis] // shards, *shape[axis + 1 :]

    def read_into(part, whole):
        def put(x, new):
            axis = rows_axis(new.shape)
            new = new.reshape(*new.shape[:axis], shards, 1, -1, *new.shape[axis + 1 :])
            return jax.lax.dynamic_update_slice_in_dim(x, new, part, axis + 1)

        return jax.tree.map(put, whole, read(part))

    one = jax.eval_shape(read, 0)
    empty = jax.tree.map(lambda x: jnp.zeros(in_parts(x.shape), x.dtype), one)
    whole = jax.lax.fori_loop(0, used, read_into, empty)
    return jax.tree.map(lambda x, like: x.reshape(whole_shape(like.shape, parts)), whole, one)


def rows_axis(shape: tuple[int, ...]) -> int:
    """Which axis of tokens [Q, n, A] or of keys and values [.., Q, K, S, H] are the rows."""
    return max(0, len(shape) - 4)


def whole_shape(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """The shape of one part -> that of all parts together."""
    axis = rows_axis(shape)
    return *shape[:axis], parts * shape[axis], *shape[axis + 1 :]
