"""The sampler's programs: prompts are read once, n rows share each prompt's cache, and all rows decode together, a
chunk of tokens at a time.

                 prefix, one a question              own, one a row
    slots:       0 ......... P-1, P ...... S-1       0 ............ C-1
    holds:       pad pad prompt,  draft              own tokens so far, free      own slot t holds the row's own token t
    mask, step t:  0   0  1 1 1,  1 1 0 0 0          1 1 .. 1(t)  0 0 0

A draft is an answer that the rows of a question may well begin with, such as the original one. It is read along with
the prompt, and each row draws after each of its tokens at once: as long as a row draws what the draft says, its own
tokens are those, and need no decode step. The row is the same as without a draft. (Speculative decoding, with the draws
fixed beforehand: Leviathan et al., 2023.)

Which rows go on, and in which of the few sizes, is decided between two chunks on the host (sampler.py).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.models import Decoder, KeyValue
from pmc_jax.models.pretrained import causal_mask, positions_from_mask
from pmc_jax.sampling.draw import SamplingParams, draw, draw_each

CHUNK = 8  # decode steps between two looks of the host


class Prompts(NamedTuple):
    """Left-padded prompts. tokens_QP: int32. mask_QP: True on real tokens. keys_Q: uint32, a stable number per question
    for its draws.

    drafts_QA: int32, the tokens of an answer, -1 where there is none. The last slot holds an end token or -1: what
    comes after it is not read.
    """

    tokens_QP: np.ndarray
    mask_QP: np.ndarray
    keys_Q: np.ndarray
    drafts_QA: np.ndarray


class State(NamedTuple):
    """Everything a decode step needs, for B rows in G groups: a frozen value that a chunk maps to the next."""

    answers_BC: jax.Array  # int32, the rows' own tokens, the first one that the draft does not have and those after it
    step: jax.Array  # int32, own tokens so far, the same for all rows
    done_B: jax.Array  # bool, has drawn an end token
    mask_BS: jax.Array  # bool, prefix slots with the prompt and with what the row has of the draft
    prefix: list[KeyValue]  # per layer, of the prompt and its draft: k_GKHS, v_GKSH
    own: list[KeyValue]  # per layer, of the own tokens: k_BKHC, v_BKCH


def slots(kv: list[KeyValue], most: int) -> list[KeyValue]:
    """Keys and values with free slots appended, `most` in all."""

    def grow(x, axis):
        return jnp.pad(x, [(0, most - x.shape[a] if a == axis else 0) for a in range(x.ndim)])

    return [(grow(k, 3), grow(v, 2)) for k, v in kv]


def read_prompts(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    alive_Q: jax.Array,
    uniform_QnA2: jax.Array,
    sampling: SamplingParams,
    shards: int,
    parts: int,
) -> tuple[jax.Array, list[KeyValue]]:
    """What each of n rows draws after the prompt and after each token of the draft [Q, n, A], and keys and values of
    both.

    Part by part, on each shard; parts behind the last alive question are not read.
    """

    def split(x):
        return x.reshape(shards, parts, -1, *x.shape[1:])

    before_QA = prompts.drafts_QA[:, :-1]
    tokens_QS, mask_QS = (
        jnp.concatenate([prompts.tokens_QP, before_QA], axis=1),
        jnp.concatenate([prompts.mask_QP, before_QA >= 0], axis=1),
    )
    tokens, mask, alive, uniform = map(split, (jnp.maximum(tokens_QS, 0), mask_QS, alive_Q, uniform_QnA2))
    used = jnp.max(jnp.where(jnp.any(alive, axis=(0, 2)), jnp.arange(parts) + 1, 0))
    n, A = uniform_QnA2.shape[1:3]

    def read(part):
        tokens_QS, mask_QS, uniform_QnA2 = (x[:, part].reshape(-1, *x.shape[3:]) for x in (tokens, mask, uniform))
        hidden_QSD, kv = model.apply({"params": params}, tokens_QS, positions_from_mask(mask_QS), causal_mask(mask_QS))
        hidden_RD = hidden_QSD[:, -A:].reshape(-1, hidden_QSD.shape[-1])
        logits_RV = model.apply({"params": params}, hidden_RD, method="unembed")
        drawn_nR = draw_each(logits_RV, uniform_QnA2.transpose(1, 0, 2, 3).reshape(n, -1, 2), sampling)
        drawn_QnA = drawn_nR.reshape(n, -1, A).transpose(1, 0, 2)
        return jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), (drawn_QnA, kv))

    def read_into(part, whole):
        return jax.tree.map(lambda x, new: x.at[:, part].set(new), whole, read(part))

    c, dtype, leading = model.config, params["embed"].dtype, (*tokens.shape[:3],)
    K, H, S = c.num_kv_heads, c.head_dim, tokens.shape[-1]
    empty = [
        (jnp.zeros((*leading, K, H, S), dtype), jnp.zeros((*leading, K, S, H), dtype)) for _ in range(c.num_layers)
    ]
    whole = jax.lax.fori_loop(0, used, read_into, (jnp.zeros((*leading, n, A), jnp.int32), empty))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), whole)


@functools.partial(
    jax.jit,
    static_argnames=("model", "sampling", "num_samples", "first_slots", "shards", "parts", "end_tokens", "cache_at"),
)
def prefill(
    model,
    params,
    prompts: Prompts,
    alive_Q,
    uniform_BA2,
    *,
    sampling,
    num_samples,
    first_slots,
    shards,
    parts,
    end_tokens,
    cache_at=None,
) -> tuple[State, jax.Array]:
    """Read each prompt and its draft once, and draw the n rows' tokens up to the first one that is not the draft's.
    Also returns how many they have of the draft, int32 [B]. Rows of questions not alive are done from the start.

    uniform_BA2: the random numbers of these draws (draw.py).
    cache_at: where keys and values lie. Empty slots come from nowhere, so that the compiler would give each device all
    heads of them.
    """
    drafts_BA, alive_B, mask_BP = (
        jnp.repeat(x, num_samples, axis=0) for x in (prompts.drafts_QA, alive_Q, prompts.mask_QP)
    )
    B, A = drafts_BA.shape
    uniform_QnA2 = uniform_BA2.reshape(-1, num_samples, A, 2)
    drawn_QnA, prefix = read_prompts(model, params, prompts, alive_Q, uniform_QnA2, sampling, shards, parts)
    drawn_BA, ends = drawn_QnA.reshape(B, A), np.array(end_tokens)
    agrees_BA = jnp.cumprod(drawn_BA == drafts_BA, axis=1, dtype=jnp.int32)
    agreed_B = jnp.sum(agrees_BA, axis=1)
    first_B = jnp.take_along_axis(drawn_BA, jnp.minimum(agreed_B, A - 1)[:, None], axis=1)[:, 0]
    ended_B = jnp.any((agrees_BA > 0) & jnp.isin(drafts_BA, ends), axis=1) | jnp.isin(first_B, ends)
    own = slots(
        [
            (jnp.zeros((B, *k.shape[1:3], 0), k.dtype), jnp.zeros((B, v.shape[1], 0, v.shape[3]), v.dtype))
            for k, v in prefix
        ],
        first_slots,
    )
    if cache_at is not None:
        prefix, own = jax.lax.with_sharding_constraint((prefix, own), cache_at)
    state = State(
        answers_BC=jnp.zeros((B, first_slots), jnp.int32).at[:, 0].set(first_B),
        step=jnp.int32(1),
        done_B=ended_B | ~alive_B,
        mask_BS=jnp.concatenate([mask_BP, jnp.arange(A - 1) < agreed_B[:, None]], axis=1),
        prefix=prefix,
        own=own,
    )
    return state, agreed_B


@functools.partial(jax.jit, static_argnames=("model", "sampling", "end_tokens"), donate_argnames=("state",))
def decode_chunk(
    model: Decoder,
    params: Any,
    state: State,
    uniform_BT2: Any,
    last_step: Any,
    *,
    sampling: SamplingParams,
    end_tokens: tuple[int, ...],
) -> State:
    """More tokens for every row, until each has `last_step` own tokens or all rows are done.

    uniform_BT2: the random numbers of the T = CHUNK steps that the next one is among, from a multiple of CHUNK on.
    """
    B, C = state.answers_BC.shape
    length_B = jnp.sum(state.mask_BS, axis=1, dtype=jnp.int32)

    def unfinished(s: State):
        return (s.step < last_step) & ~jnp.all(s.done_B)

    def one_token(s: State) -> State:
        at = s.step - 1  # the newest token, whose key and value are written now
        token_B = jax.lax.dynamic_index_in_dim(s.answers_BC, at, axis=1, keepdims=False)
        mask_BT = jnp.concatenate([s.mask_BS, jnp.broadcast_to(jnp.arange(C) <= at, (B, C))], axis=1)
        cache = list(zip(s.prefix, s.own))
        with jax.named_scope("decode"):
            hidden_B1D, own = model.apply(
                {"params": params}, token_B[:, None], (length_B + at)[:, None], mask_BT[:, None], cache=cache, where=at
            )
            logits_BV = model.apply({"params": params}, hidden_B1D[:, 0], method="unembed")
        with jax.named_scope("draw"):
            next_B = draw(logits_BV, uniform_BT2[:, s.step % CHUNK], sampling)
        answers_BC = jax.lax.dynamic_update_index_in_dim(s.answers_BC, jnp.where(s.done_B, 0, next_B), s.step, axis=1)
        done_B = s.done_B | jnp.isin(next_B, np.array(end_tokens))
        return s._replace(answers_BC=answers_BC, step=s.step + 1, done_B=done_B, own=own)

    return jax.lax.while_loop(unfinished, one_token, state)


@functools.partial(jax.jit, static_argnames=("own_slots", "sharing"))
def regroup(state: State, rows_B: jax.Array, own_slots: int, sharing: int) -> State:
    """The state of the given rows, with room for `own_slots` own tokens. Each `sharing` rows are of one question and
    get one copy of its prefix.
    """
    groups_G = rows_B[::sharing] // (state.done_B.shape[0] // state.prefix[0][0].shape[0])
    by_row, by_group = (lambda x: x[rows_B]), (lambda x: x[groups_G])
    return State(
        answers_BC=jnp.pad(state.answers_BC[rows_B], ((0, 0), (0, own_slots - state.answers_BC.shape[1]))),
        step=state.step,
        done_B=state.done_B[rows_B],
        mask_BS=state.mask_BS[rows_B],
        prefix=jax.tree.map(by_group, state.prefix),
        own=slots(jax.tree.map(by_row, state.own), own_slots),
    )


@functools.partial(jax.jit, static_argnames=("own_slots",))
def grow(state: State, own_slots: int) -> State:
    """The same rows with room for `own_slots` own tokens."""
    more = own_slots - state.answers_BC.shape[1]
    return state._replace(answers_BC=jnp.pad(state.answers_BC, ((0, 0), (0, more))), own=slots(state.own, own_slots))
