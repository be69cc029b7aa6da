"""Decoding: all rows of a batch draw tokens together, a chunk of steps at a time.

                 prompt_cache, one a question         decode_cache, one a row
    slots:       0 ......... P-1, P ...... S-1        0 ............ C-1
    holds:       pad pad prompt,  draft               tokens after the draft, then free slots
    mask, step t:  0   0  1 1 1,  1 1 0 0 0           1 1 .. 1(t)  0 0 0

A row's answer is the accepted part of its draft (prefill.py), then the tokens of its decode cache: slot t holds the key
and value of decoded token t. The n rows of a question read the same prompt cache; each masks the draft's tokens that it
does not have. Which rows go on, and in which bucket, is decided between two chunks on the host (engine.py).

Where layers are scanned (`Decoder.scan`), they only read the cache. A step attends to the slots before t and, as a part
of their own, to the key and value of the token it reads; these go into slot t afterwards, in place, and nothing else of
the cache is written. Otherwise each layer writes slot t first.

Axes: B row, G group of rows with one prompt cache, S prompt-cache slot, C decode-cache slot, T step of a chunk, K
key/value head, H head width, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.models import Decoder, KeyValue
from pmc_jax.models.attention import SlotsFirst
from pmc_jax.sampling.draw import draw
from pmc_jax.sampling.params import SamplingStrategy

CHUNK = 8  # decode steps between two looks of the host


class DecodeState(NamedTuple):
    """All that a decode step needs, for B rows in G groups. A frozen value: a chunk maps it to the next one.

    Attributes:
        tokens_BC: int32, the decoded tokens: the first one that is not the draft's, and those after it.
        step: int32 scalar, decoded tokens so far, the same number for all rows.
        done_B: bool, the row has drawn an end token, or nobody waits for it.
        mask_BS: bool, prompt-cache slots with the prompt and with what the row has of its draft.
        prompt_cache: per layer, keys and values of prompt and draft, (k_GKHS, v_GKSH), or SlotsFirst.
        decode_cache: per layer, keys and values of the decoded tokens, (k_BKHC, v_BKCH), or SlotsFirst.
    """

    tokens_BC: jax.Array
    step: jax.Array
    done_B: jax.Array
    mask_BS: jax.Array
    prompt_cache: list[KeyValue] | list[SlotsFirst]
    decode_cache: list[KeyValue] | list[SlotsFirst]


@functools.partial(jax.jit, static_argnames=("model", "strategy", "end_tokens"), donate_argnames=("state",))
def decode_chunk(
    model: Decoder,
    params: Any,
    state: DecodeState,
    uniform_BT2: Any,
    last_step: Any,
    *,
    strategy: SamplingStrategy,
    end_tokens: tuple[int, ...],
) -> DecodeState:
    """Decode more tokens for every row, until each has `last_step` of them or all rows are done.

    Args:
        model: static.
        params: laid out for decoding.
        state: of B rows with C slots; it is donated.
        uniform_BT2: float32, the random numbers of T = CHUNK steps. The first one is a multiple of CHUNK, and the next
            step is among them.
        last_step: at most C.
        strategy: what is drawn from; static.
        end_tokens: ids that end an answer; static.

    Returns:
        The state after the last step. A row that is done goes on with token 0.
    """
    B, C = state.tokens_BC.shape
    length_B = jnp.sum(state.mask_BS, axis=1, dtype=jnp.int32)

    def unfinished(s: DecodeState):
        return (s.step < last_step) & ~jnp.all(s.done_B)

    def one_token(s: DecodeState) -> DecodeState:
        newest = s.step - 1  # the slot of the newest token, whose key and value are written now
        token_B = jax.lax.dynamic_index_in_dim(s.tokens_BC, newest, axis=1, keepdims=False)
        mask_BX = jnp.concatenate([s.mask_BS, own_mask(newest, B, C, bool(model.scan))], axis=1)
        cache = s.prompt_cache, s.decode_cache
        logits_BV, decode_cache = read_token(model, params, token_B, length_B + newest, mask_BX, cache, newest)
        with jax.named_scope("draw"):
            next_B = draw(logits_BV, uniform_BT2[:, s.step % CHUNK], strategy)
        tokens_BC = jax.lax.dynamic_update_index_in_dim(s.tokens_BC, jnp.where(s.done_B, 0, next_B), s.step, axis=1)
        done_B = s.done_B | jnp.isin(next_B, np.array(end_tokens))
        return s._replace(tokens_BC=tokens_BC, step=s.step + 1, done_B=done_B, decode_cache=decode_cache)

    return jax.lax.while_loop(unfinished, one_token, state)


def read_token(
    model: Decoder,
    params: Any,
    token_B: jax.Array,
    position_B: jax.Array,
    mask_BX: jax.Array,
    cache: tuple[list, list],
    slot: jax.Array,
) -> tuple[jax.Array, list]:
    """Read one token of each row.

    Args:
        model: static.
        params: laid out for decoding.
        token_B: int32.
        position_B: int32, of the tokens.
        mask_BX: bool, which slots each row looks at: those of the prompt cache, then its own (`own_mask`).
        cache: of the prompts, and of the rows.
        slot: the rows' own slot that keys and values of the tokens go to, the same one for all.

    Returns:
        Logits of the next token, [B, V], and the rows' cache with these keys and values.
    """
    with jax.named_scope("decode"):
        hidden_B1D, decode_cache = model.apply(
            {"params": params},
            token_B[:, None],
            position_B[:, None],
            mask_BX[:, None],
            cache=list(zip(*cache)),
            slot=slot,
        )
        if model.scan:
            # The cache is written when all of it has been read, or the compiler would keep a copy.
            hidden_B1D, own = jax.lax.optimization_barrier((hidden_B1D, decode_cache))
            decode_cache = write_slot(cache[1], own, slot)
        return model.apply({"params": params}, hidden_B1D[:, 0], method="unembed"), decode_cache


def own_mask(newest: jax.Array, rows: int, slots: int, only_read: bool) -> jax.Array:
    """Which of its own slots a row looks at: [B, C] up to the newest token's, or, where the cache is only read,
    [B, C + 1]: those before it, and the token itself.
    """
    if not only_read:
        return jnp.broadcast_to(jnp.arange(slots) <= newest, (rows, slots))
    return jnp.broadcast_to(jnp.append(jnp.arange(slots) < newest, True), (rows, slots + 1))


def write_slot(cache: list[SlotsFirst], own: list[SlotsFirst], slot: jax.Array) -> list[SlotsFirst]:
    """The cache with the keys and values of one token in a slot, cast to its dtype."""

    def write(old, new):
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis=old.ndim - 2)

    return jax.tree.map(write, cache, own)


def pad_slots(cache: list, slots: int) -> list:
    """A cache of the same keys and values with free slots appended, `slots` in all."""

    def pad(x, axis):
        axis %= x.ndim
        return jnp.pad(x, [(0, slots - x.shape[a] if a == axis else 0) for a in range(x.ndim)])

    def pad_entry(entry):
        if isinstance(entry, SlotsFirst):
            return SlotsFirst(pad(entry.keys, -2), pad(entry.values, -2))
        return pad(entry[0], -1), pad(entry[1], -2)

    return [pad_entry(entry) for entry in cache]


@functools.partial(jax.jit, static_argnames=("slots",))
def grow(state: DecodeState, slots: int) -> DecodeState:
    """The same rows with room for `slots` decoded tokens."""
    more = slots - state.tokens_BC.shape[1]
    return state._replace(
        tokens_BC=jnp.pad(state.tokens_BC, ((0, 0), (0, more))), decode_cache=pad_slots(state.decode_cache, slots)
    )


@functools.partial(jax.jit, static_argnames=("slots", "sharing"))
def select_rows(state: DecodeState, rows_B: jax.Array, slots: int, sharing: int) -> DecodeState:
    """The state of some rows.

    Args:
        state: of the rows so far.
        rows_B: int, which of them, in any order and as often as wanted. Each `sharing` rows side by side are of one
            question.
        slots: room for so many decoded tokens; static.
        sharing: rows that get one copy of their question's prompt cache; static.
    """
    groups_G = rows_B[::sharing] // (state.done_B.shape[0] // state.prompt_cache[0][0].shape[-4])
    by_row, by_group = (lambda x: x[..., rows_B, :, :, :]), (lambda x: x[..., groups_G, :, :, :])
    return DecodeState(
        tokens_BC=jnp.pad(state.tokens_BC[rows_B], ((0, 0), (0, slots - state.tokens_BC.shape[1]))),
        step=state.step,
        done_B=state.done_B[rows_B],
        mask_BS=state.mask_BS[rows_B],
        prompt_cache=jax.tree.map(by_group, state.prompt_cache),
        decode_cache=pad_slots(jax.tree.map(by_row, state.decode_cache), slots),
    )
