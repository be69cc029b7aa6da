"""prompts -> answers: each question is prefilled once, n samples share its cache, and all rows decode together in jitted chunks.

                 prefix, one a question      own, one a row
    slots:       0 ......... P-1             0 ............ C-1
    holds:       pad pad prompt              answer so far, free      own slot t holds the answer's token t
    mask, step t:  0   0  1 1 1              1 1 .. 1(t)  0 0 0

Between chunks the host looks at which rows are done, or have lost (contest.py). When few are left they move into a smaller batch with more own
slots (and take a copy of their prefix along). Rows that outgrow their slots go on in a few smaller batches, or, where they are too many for that,
with twice the slots: attention reads no more than it must. Sizes and slots are few (sizes.py), since each is a program to compile.
A draw is keyed by (seed, round, question, sample, position): it does not depend on batching, compaction, device count or resume.
"""

import functools
import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pmc_jax import parallel, sizes
from pmc_jax.draw import Warp, draw, noise
from pmc_jax.models import Decoder, KeyValue
from pmc_jax.pretrained import causal_mask, positions_from_mask
from pmc_jax.sizes import Rung, batches_below, cut_batches, ladder, round_up

PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that several sets of them share a compiled shape
CHUNK = 8  # decode steps between two looks of the host


class Prompts(NamedTuple):
    """Left-padded prompts. tokens_QP: int32. mask_QP: True on real tokens. keys_Q: uint32, a stable number per question for its draws."""

    tokens_QP: np.ndarray
    mask_QP: np.ndarray
    keys_Q: np.ndarray


class Seen(NamedTuple):
    """One row between two chunks: its tokens so far, what was drawn after an end token included, and whether it has drawn one."""

    tokens: list[int]
    done: bool


Losers = Callable[[dict[int, Seen]], set[int]]  # {row: what is seen of it} -> the rows that need not go on; row = question * samples + sample


class State(NamedTuple):
    """Everything a decode step needs, for B rows in G groups: a frozen value that a chunk maps to the next."""

    answers_BC: jax.Array  # int32, drawn tokens
    step: jax.Array  # int32, tokens drawn so far, the same for all rows
    done_B: jax.Array  # bool, has drawn an end token
    mask_GP: jax.Array  # bool, real prompt slots
    prefix: list[KeyValue]  # per layer, of the prompt: k_GKHP, v_GKPH
    own: list[KeyValue]  # per layer, of the answer: k_BKHC, v_BKCH


def device_limits(mesh: Mesh) -> sizes.Limits:
    """What the mesh's devices want."""
    return sizes.CPU if parallel.on_cpu(mesh) else sizes.ACCELERATOR


def question_key(text: str) -> int:
    """A stable 32-bit number of a question's text: its draws are the same alone or among others, in any order."""
    return zlib.crc32(text.encode())


def left_pad(token_lists: list[list[int]], texts: list[str], multiple: int = PROMPT_MULTIPLE) -> Prompts:
    """Prompts from ragged token lists, padded to the longest, rounded up."""
    width = round_up(max(map(len, token_lists)), multiple)
    tokens, mask = np.zeros((len(token_lists), width), np.int32), np.zeros((len(token_lists), width), bool)
    for row, ids in enumerate(token_lists):
        tokens[row, width - len(ids) :] = ids
        mask[row, width - len(ids) :] = True
    return Prompts(tokens, mask, np.array([question_key(t) for t in texts], np.uint32))


def row_keys(keys_Q: np.ndarray, seed: int, round_index: int, num_samples: int) -> np.ndarray:
    """A random key per row, uint32 [Q * n, 2], question-major: hashed from (seed, round, question, sample) on the host, so that it is no program."""
    numbers = itertools.product(keys_Q.tolist(), range(num_samples))
    return np.array([np.random.SeedSequence((seed % 2**32, round_index, *number)).generate_state(2) for number in numbers])


@functools.partial(jax.jit, static_argnames="warp")
def chunk_noise(keys_B2: jax.Array, first_step: int, warp: Warp) -> jax.Array:
    """The noise of CHUNK draws of all rows, [CHUNK, B, X]. keys_B2: from `row_keys`."""
    keys_B, steps_C = jax.random.wrap_key_data(keys_B2, impl="threefry2x32"), first_step + jnp.arange(CHUNK)
    return jax.vmap(lambda step: noise(jax.vmap(jax.random.fold_in, (0, None))(keys_B, step), warp))(steps_C)


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
    model, params, prompts: Prompts, alive_Q, noise_CBX, *, warp, num_samples, first_slots, shards, parts, end_tokens, cache_at=None
) -> State:
    """Read each prompt once and draw the first token of its n rows. Rows of questions not alive are done from the start.

    noise_CBX: `chunk_noise` from step 0 on.
    cache_at: where keys and values lie. Empty slots come from nowhere, so that the compiler would give each device all heads of them.
    """
    logits_QV, prefix = read_prompts(model, params, prompts, alive_Q, shards, parts)
    first_B = draw(jnp.repeat(logits_QV, num_samples, axis=0), noise_CBX[0], warp)
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
def decode_chunk(
    model: Decoder, params: Any, state: State, noise_CBX: Any, rows_B: Any, last_step: Any, *, warp: Warp, end_tokens: tuple[int, ...]
) -> State:
    """More tokens for every row, until `last_step` tokens are drawn or all rows are done.

    noise_CBX: `chunk_noise` of the CHUNK steps that the next one is among. rows_B: whose noise of it each row takes.
    """
    noise_CBX = noise_CBX[:, rows_B]
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
            next_B = draw(logits_BV, noise_CBX[s.step % CHUNK], warp)
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


class Decoding(NamedTuple):
    """A batch between two chunks."""

    state: State
    rows_B: np.ndarray  # which row each is, -1: nobody's any more
    noise_B: np.ndarray  # whose noise it takes
    rungs: list[Rung]  # its own size, and the smaller ones


def close(batch: Decoding, most: int, losers: Losers | None, end_tokens: tuple[int, ...]) -> tuple[Decoding, dict[int, list[int]]]:
    """The batch without the rows that are done, have `most` tokens or have lost; and {row: its tokens} of these."""
    state, rows_B = batch.state, batch.rows_B
    step, done_B, answers_BC = parallel.gather((state.step, state.done_B, state.answers_BC))
    seen = {int(rows_B[b]): Seen(answers_BC[b, :step].tolist(), bool(done_B[b] or step >= most)) for b in np.flatnonzero(rows_B >= 0)}
    lost = losers(seen) if losers else set()
    closed = {row for row, of_row in seen.items() if of_row.done} | lost
    rows_B = np.where(np.isin(rows_B, list(closed)), -1, rows_B)
    if lost:
        state = state._replace(done_B=parallel.put(rows_B < 0, state.done_B.sharding))
    return batch._replace(state=state, rows_B=rows_B), {row: cut(seen[row].tokens, end_tokens) for row in closed}


def move(batch: Decoding, most: int, sharding: NamedSharding) -> list[Decoding]:
    """Where the batch's rows go on: in batches of the next smaller size, or in the same one with more slots. Empty: they stay."""
    alive, slots = np.flatnonzero(batch.rows_B >= 0), batch.state.answers_BC.shape[1]
    full, below = int(batch.state.step) == slots, batch.rungs[1:]
    count = batches_below(len(alive), full, below[0]) if below else 0
    if not count:
        return [batch._replace(state=grow(batch.state, min(2 * slots, most)))] if full else []
    found = []
    for part in np.array_split(alive, count):
        kept = np.resize(part, below[0].rows)  # filled up with copies, which end when theirs do
        rows_B = np.where(np.arange(len(kept)) < len(part), batch.rows_B[kept], -1)
        state = regroup(batch.state, parallel.put(kept, sharding), max(below[0].slots, slots))
        found.append(Decoding(state, rows_B, batch.noise_B[kept], below))
    return found


def decode_rows(
    model: Decoder, params: Any, state: State, noise_from: Callable, rows: range, most: int, rungs: list[Rung], losers: Losers | None, **how
) -> dict[int, list[int]]:
    """Run chunks until every row is done, has `most` tokens or has lost, moving to smaller batches between them. Returns {row: its tokens}.

    noise_from: step -> the noise of the CHUNK steps from it on.
    """
    answers: dict[int, list[int]] = {}
    sharding = parallel.rows(parallel.mesh_of(params))
    first_B = np.arange(state.done_B.shape[0])
    batches = [Decoding(state, np.where(first_B < len(rows), rows.start + first_B, -1), first_B, rungs)]
    while batches:
        batch, closed = close(batches.pop(), most, losers, how["end_tokens"])
        answers |= closed
        if np.all(batch.rows_B < 0):
            continue
        if moved := move(batch, most, sharding):
            batches += moved
            continue
        begun = int(batch.state.step) // CHUNK * CHUNK
        last = min(begun + CHUNK, batch.state.answers_BC.shape[1])
        noise_CBX, noise_B = noise_from(begun), parallel.put(batch.noise_B, sharding)
        batches.append(batch._replace(state=decode_chunk(model, params, batch.state, noise_CBX, noise_B, last, **how)))
    return answers


def cut(tokens: list[int], end_tokens: tuple[int, ...]) -> list[int]:
    """The tokens up to and with the first end token."""
    ends = [tokens.index(e) for e in end_tokens if e in tokens]
    return tokens[: min(ends) + 1] if ends else tokens


def sample_tokens(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    *,
    warp: Warp,
    num_samples: int,
    max_new_tokens: int,
    end_tokens: tuple[int, ...],
    seed: int,
    round_index: int = 0,
    max_rows: int = 512,
    capacity: int | None = None,
    losers: Losers | None = None,
    on_progress: Any = None,
) -> list[list[list[int]]]:
    """Sample n answers to every prompt. Returns [question][sample] -> token ids, the end token included where one was drawn.

    params: laid out for decoding. max_rows: rows decoded at once on each data shard. capacity: the most questions that will come in one call
    (all of these, when None): batch sizes are taken from it, so that later calls with fewer questions compile nothing new.
    losers: asked between chunks which rows need not go on; those keep what they have drawn.
    on_progress: called with the number of questions finished.
    """
    mesh = parallel.mesh_of(params)
    shards = mesh.shape["data"]
    Q = len(prompts.tokens_QP)
    limits = device_limits(mesh)
    _, per_batch, size, parts, most_rows = cut_batches(capacity or Q, prompts.tokens_QP.shape[1], num_samples, max_rows, shards, limits)
    rungs = ladder(most_rows, shards, max_new_tokens, limits)
    answers: list[list[list[int]]] = []
    for start in range(0, Q, per_batch):
        part = Prompts(*(x[start : start + per_batch] for x in prompts))
        count = len(part.tokens_QP)
        padded = Prompts(*(np.concatenate([x, np.repeat(x[:1], size - count, axis=0)]) for x in part))
        inputs = parallel.put((padded, np.arange(size) < count), parallel.rows(mesh))
        how = dict(warp=warp, end_tokens=end_tokens)
        shape = dict(num_samples=num_samples, first_slots=rungs[0].slots, shards=shards, parts=parts, cache_at=parallel.cache(mesh))
        keys_B2 = parallel.put(row_keys(padded.keys_Q, seed, round_index, num_samples), parallel.rows(mesh))
        noise_from = functools.lru_cache(1)(functools.partial(chunk_noise, keys_B2, warp=warp))
        state = prefill(model, params, *inputs, noise_from(0), **shape, **how)
        rows = range(start * num_samples, (start + count) * num_samples)
        found = decode_rows(model, params, state, noise_from, rows, max_new_tokens, rungs, losers, **how)
        answers += [[found[row] for row in rows[at : at + num_samples]] for at in range(0, len(rows), num_samples)]
        if on_progress:
            on_progress(len(answers))
    return answers
