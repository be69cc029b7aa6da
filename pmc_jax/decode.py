"""The sampler's programs: prompts are read once, n rows share each prompt's cache, and all rows decode together, a chunk of tokens at a time.

                 prefix, one a question      own, one a row
    slots:       0 ......... P-1             0 ............ C-1
    holds:       pad pad prompt              answer so far, free      own slot t holds the answer's token t
    mask, step t:  0   0  1 1 1              1 1 .. 1(t)  0 0 0

Which rows go on, and in which of the few sizes, is decided between two chunks on the host (sampler.py).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.draw import Warp, draw
from pmc_jax.models import Decoder, KeyValue
from pmc_jax.pretrained import causal_mask, positions_from_mask

CHUNK = 8  # decode steps between two looks of the host


class Prompts(NamedTuple):
    """Left-padded prompts. tokens_QP: int32. mask_QP: True on real tokens. keys_Q: uint32, a stable number per question for its draws."""

    tokens_QP: np.ndarray
    mask_QP: np.ndarray
    keys_Q: np.ndarray


class State(NamedTuple):
    """Everything a decode step needs, for B rows in G groups: a frozen value that a chunk maps to the next."""

    answers_BC: jax.Array  # int32, drawn tokens
    step: jax.Array  # int32, tokens drawn so far, the same for all rows
    done_B: jax.Array  # bool, has drawn an end token
    mask_GP: jax.Array  # bool, real prompt slots
    prefix: list[KeyValue]  # per layer, of the prompt: k_GKHP, v_GKPH
    own: list[KeyValue]  # per layer, of the answer: k_BKHC, v_BKCH


def slots(kv: list[KeyValue], most: int) -> list[KeyValue]:
    """Keys and values with free slots appended, `most` in all."""

    def grow(x, axis):
        return jnp.pad(x, [(0, most - x.shape[a] if a == axis else 0) for a in range(x.ndim)])

    return [(grow(k, 3), grow(v, 2)) for k, v in kv]


def read_prompts(model: Decoder, params: Any, prompts: Prompts, alive_Q: jax.Array, shards: int, parts: int) -> tuple[jax.Array, list[KeyValue]]:
    """Logits after each prompt [Q, V], and its keys and values. Part by part, on each shard; parts behind the last alive question are not read."""

    def split(x):
        return x.reshape(shards, parts, -1, *x.shape[1:])

    tokens, mask, alive = split(prompts.tokens_QP), split(prompts.mask_QP), split(alive_Q)
    used = jnp.max(jnp.where(jnp.any(alive, axis=(0, 2)), jnp.arange(parts) + 1, 0))

    def read(part):
        tokens_QP, mask_QP = (x[:, part].reshape(-1, x.shape[-1]) for x in (tokens, mask))
        hidden_QPD, kv = model.apply({"params": params}, tokens_QP, positions_from_mask(mask_QP), causal_mask(mask_QP))
        logits_QV = model.apply({"params": params}, hidden_QPD[:, -1], method="unembed")
        return jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), (logits_QV, kv))

    def read_into(part, whole):
        return jax.tree.map(lambda x, new: x.at[:, part].set(new), whole, read(part))

    c, dtype, leading = model.config, params["embed"].dtype, (*tokens.shape[:3],)
    K, H, P = c.num_kv_heads, c.head_dim, tokens.shape[-1]
    empty = [(jnp.zeros((*leading, K, H, P), dtype), jnp.zeros((*leading, K, P, H), dtype)) for _ in range(c.num_layers)]
    nothing = jnp.zeros((*leading, c.vocab_size), jnp.float32), empty
    whole = jax.lax.fori_loop(0, used, read_into, nothing)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), whole)


@functools.partial(jax.jit, static_argnames=("model", "warp", "num_samples", "first_slots", "shards", "parts", "end_tokens", "cache_at"))
def prefill(
    model, params, prompts: Prompts, alive_Q, uniform_B2, *, warp, num_samples, first_slots, shards, parts, end_tokens, cache_at=None
) -> State:
    """Read each prompt once and draw the first token of its n rows. Rows of questions not alive are done from the start.

    uniform_B2: the random numbers of its draw (draw.py).
    cache_at: where keys and values lie. Empty slots come from nowhere, so that the compiler would give each device all heads of them.
    """
    logits_QV, prefix = read_prompts(model, params, prompts, alive_Q, shards, parts)
    first_B = draw(jnp.repeat(logits_QV, num_samples, axis=0), uniform_B2, warp)
    B = first_B.shape[0]
    own = slots([(jnp.zeros((B, *k.shape[1:3], 0), k.dtype), jnp.zeros((B, v.shape[1], 0, v.shape[3]), v.dtype)) for k, v in prefix], first_slots)
    if cache_at is not None:
        prefix, own = jax.lax.with_sharding_constraint((prefix, own), cache_at)
    return State(
        answers_BC=jnp.zeros((B, first_slots), jnp.int32).at[:, 0].set(first_B),
        step=jnp.int32(1),
        done_B=jnp.isin(first_B, np.array(end_tokens)) | ~jnp.repeat(alive_Q, num_samples, axis=0),
        mask_GP=prompts.mask_QP,
        prefix=prefix,
        own=own,
    )


@functools.partial(jax.jit, static_argnames=("model", "warp", "end_tokens"), donate_argnames=("state",))
def decode_chunk(model: Decoder, params: Any, state: State, uniform_BT2: Any, last_step: Any, *, warp: Warp, end_tokens: tuple[int, ...]) -> State:
    """More tokens for every row, until `last_step` tokens are drawn or all rows are done.

    uniform_BT2: the random numbers of the T = CHUNK steps that the next one is among, from a multiple of CHUNK on.
    """
    B, C = state.answers_BC.shape
    rows_per_group = B // state.mask_GP.shape[0]
    mask_BP = jnp.repeat(state.mask_GP, rows_per_group, axis=0)
    length_B = jnp.sum(mask_BP, axis=1, dtype=jnp.int32)

    def unfinished(s: State):
        return (s.step < last_step) & ~jnp.all(s.done_B)

    def one_token(s: State) -> State:
        at = s.step - 1  # the newest token, whose key and value are written now
        token_B = jax.lax.dynamic_index_in_dim(s.answers_BC, at, axis=1, keepdims=False)
        mask_BS = jnp.concatenate([mask_BP, jnp.broadcast_to(jnp.arange(C) <= at, (B, C))], axis=1)
        cache = list(zip(s.prefix, s.own))
        with jax.named_scope("decode"):
            hidden_B1D, own = model.apply({"params": params}, token_B[:, None], (length_B + at)[:, None], mask_BS[:, None], cache=cache, where=at)
            logits_BV = model.apply({"params": params}, hidden_B1D[:, 0], method="unembed")
        with jax.named_scope("draw"):
            next_B = draw(logits_BV, uniform_BT2[:, s.step % CHUNK], warp)
        answers_BC = jax.lax.dynamic_update_index_in_dim(s.answers_BC, jnp.where(s.done_B, 0, next_B), s.step, axis=1)
        done_B = s.done_B | jnp.isin(next_B, np.array(end_tokens))
        return s._replace(answers_BC=answers_BC, step=s.step + 1, done_B=done_B, own=own)

    return jax.lax.while_loop(unfinished, one_token, state)


@functools.partial(jax.jit, static_argnames=("own_slots",))
def regroup(state: State, rows_B: jax.Array, own_slots: int) -> State:
    """The state of the given rows, each with a copy of its prefix (G = B), and with `own_slots` answer slots."""
    groups_B = rows_B // (state.done_B.shape[0] // state.mask_GP.shape[0])
    by_row, by_group = (lambda x: x[rows_B]), (lambda x: x[groups_B])
    return State(
        answers_BC=jnp.pad(state.answers_BC[rows_B], ((0, 0), (0, own_slots - state.answers_BC.shape[1]))),
        step=state.step,
        done_B=state.done_B[rows_B],
        mask_GP=state.mask_GP[groups_B],
        prefix=jax.tree.map(by_group, state.prefix),
        own=slots(jax.tree.map(by_row, state.own), own_slots),
    )


@functools.partial(jax.jit, static_argnames=("own_slots",))
def grow(state: State, own_slots: int) -> State:
    """The same rows with room for `own_slots` answer tokens."""
    more = own_slots - state.answers_BC.shape[1]
    return state._replace(answers_BC=jnp.pad(state.answers_BC, ((0, 0), (0, more))), own=slots(state.own, own_slots))
