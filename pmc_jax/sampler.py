"""prompts -> answers: each question is prefilled once, its cache fanned out to n samples, and rows decode together in jitted chunks.

              slots:   0 ........ P-1 | P ............. P+C-1
    cache of one row:  pad pad prompt | answer so far, free      slot P+t holds the answer's token t
    mask of step t:     0   0  1 1 1  | 1 1 .. 1(t)  0 0 0

Between chunks the host looks at which rows are done; when half of them are, the rest move into a batch of half the size.
A draw is keyed by (seed, round, question, sample, position): it does not depend on batching, compaction, device count or resume.
"""

import functools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax import parallel
from pmc_jax.draw import Warp, draw
from pmc_jax.models import Cache, Decoder
from pmc_jax.pretrained import causal_mask, positions_from_mask

PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that few shapes are compiled
CHUNK = 16  # decode steps between two looks of the host
MIN_ROWS = 16  # a smaller batch is not compacted further: the step's time no longer shrinks with it


class Prompts(NamedTuple):
    """Left-padded prompts. tokens_QP: int32. mask_QP: True on real tokens. keys_Q: uint32, a stable number per question for its draws."""

    tokens_QP: np.ndarray
    mask_QP: np.ndarray
    keys_Q: np.ndarray


class State(NamedTuple):
    """Everything a decode step needs, for B rows: a frozen value that a chunk maps to the next."""

    answers_BC: jax.Array  # int32, drawn tokens
    step: jax.Array  # int32, tokens drawn so far, the same for all rows
    done_B: jax.Array  # bool, has drawn an end token
    keys_B: jax.Array  # PRNG keys, one a row
    length_B: jax.Array  # int32, real tokens of the prompt
    mask_BP: jax.Array  # bool, real prompt slots
    cache: Cache


def question_key(text: str) -> int:
    """A stable 32-bit number of a question's text: its draws are the same alone or among others, in any order."""
    return zlib.crc32(text.encode())


def left_pad(token_lists: list[list[int]], texts: list[str], length: int | None = None) -> Prompts:
    """Prompts from ragged token lists; padded to `length`, or to the longest rounded up."""
    longest = max(map(len, token_lists))
    width = length or -(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE
    tokens, mask = np.zeros((len(token_lists), width), np.int32), np.zeros((len(token_lists), width), bool)
    for row, ids in enumerate(token_lists):
        tokens[row, width - len(ids) :] = ids
        mask[row, width - len(ids) :] = True
    return Prompts(tokens, mask, np.array([question_key(t) for t in texts], np.uint32))


def sample_keys(seed: int, round_index: int, keys_Q: jax.Array, num_samples: int) -> jax.Array:
    """One key per (question, sample), [Q * n], question-major."""
    base = jax.random.fold_in(jax.random.key(seed), round_index)

    def one(question, sample):
        return jax.random.fold_in(jax.random.fold_in(base, question), sample)

    grid = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys_Q, jnp.arange(num_samples))
    return grid.reshape(-1)


@functools.partial(jax.jit, static_argnames=("model", "warp", "num_samples", "max_new_tokens", "end_tokens"))
def prefill(model, params, prompts: Prompts, alive_Q, seed, round_index, *, warp, num_samples, max_new_tokens, end_tokens) -> State:
    """Read each prompt once, fan out to n rows a question, draw the first token. Rows of questions not alive are done from the start."""
    hidden_QPD, cache_Q = model.apply({"params": params}, prompts.tokens_QP, positions_from_mask(prompts.mask_QP), causal_mask(prompts.mask_QP))
    logits_QV = model.apply({"params": params}, hidden_QPD[:, -1], method="unembed")

    def fan_out(x):
        return jnp.repeat(x, num_samples, axis=0)

    keys_B = sample_keys(seed, round_index, prompts.keys_Q, num_samples)
    first_B = draw(fan_out(logits_QV), jax.vmap(jax.random.fold_in, (0, None))(keys_B, 0), warp)
    C = max_new_tokens
    return State(
        answers_BC=jnp.zeros((first_B.shape[0], C), jnp.int32).at[:, 0].set(first_B),
        step=jnp.int32(1),
        done_B=jnp.isin(first_B, np.array(end_tokens)) | ~fan_out(alive_Q),
        keys_B=keys_B,
        length_B=fan_out(jnp.sum(prompts.mask_QP, axis=1, dtype=jnp.int32)),
        mask_BP=fan_out(prompts.mask_QP),
        cache=[(fan_out(jnp.pad(k, ((0, 0), (0, 0), (0, 0), (0, C)))), fan_out(jnp.pad(v, ((0, 0), (0, 0), (0, C), (0, 0))))) for k, v in cache_Q],
    )


@functools.partial(jax.jit, static_argnames=("model", "warp", "end_tokens"), donate_argnums=(2,))
def decode_chunk(model: Decoder, params: Any, state: State, *, warp: Warp, end_tokens: tuple[int, ...]) -> State:
    """Up to CHUNK more tokens for every row; stops early when all are done."""
    P, C = state.mask_BP.shape[1], state.answers_BC.shape[1]
    last_step = jnp.minimum(state.step + CHUNK, C)

    def unfinished(s: State):
        return (s.step < last_step) & ~jnp.all(s.done_B)

    def one_token(s: State) -> State:
        at = s.step - 1  # the newest token, whose key and value are written now
        token_B = jax.lax.dynamic_index_in_dim(s.answers_BC, at, axis=1, keepdims=False)
        seen_BC = jnp.broadcast_to(jnp.arange(C) <= at, s.answers_BC.shape)
        mask_BS = jnp.concatenate([s.mask_BP, seen_BC], axis=1)
        with jax.named_scope("decode"):
            hidden_B1D, cache = model.apply(
                {"params": params}, token_B[:, None], (s.length_B + at)[:, None], mask_BS[:, None], cache=s.cache, slot=P + at
            )
            logits_BV = model.apply({"params": params}, hidden_B1D[:, 0], method="unembed")
        with jax.named_scope("draw"):
            next_B = draw(logits_BV, jax.vmap(jax.random.fold_in, (0, None))(s.keys_B, s.step), warp)
        answers_BC = jax.lax.dynamic_update_index_in_dim(s.answers_BC, jnp.where(s.done_B, 0, next_B), s.step, axis=1)
        done_B = s.done_B | jnp.isin(next_B, np.array(end_tokens))
        return s._replace(answers_BC=answers_BC, step=s.step + 1, done_B=done_B, cache=cache)

    return jax.lax.while_loop(unfinished, one_token, state)


@jax.jit
def take_rows(state: State, rows_B: jax.Array) -> State:
    """The state of the given rows only."""
    return jax.tree.map(lambda x: x if x.ndim == 0 and x is state.step else x[rows_B], state)


def ladder(most: int, multiple: int, least: int) -> list[int]:
    """Batch sizes to compile for: `most`, its half, quarter, ... down to about `least`, each a multiple of `multiple`."""
    sizes = [-(-most // multiple) * multiple]
    while sizes[-1] // 2 >= max(least, multiple):
        sizes.append(-(-(sizes[-1] // 2) // multiple) * multiple)
    return sizes


def fit(count: int, sizes: list[int]) -> int:
    """The smallest size that holds `count`."""
    return min(s for s in sizes if s >= count)


def decode_rows(model: Decoder, params: Any, state: State, sizes: list[int], warp: Warp, end_tokens: tuple[int, ...]) -> np.ndarray:
    """Run chunks until every row is done or full, compacting between them. Returns the tokens [B, C]; rows are unique by index."""
    C = state.answers_BC.shape[1]
    answers_BC = np.zeros(state.answers_BC.shape, np.int32)
    rows_B = np.arange(len(answers_BC))  # which original row each current row is; -1 for filling
    sharding = parallel.rows(parallel.mesh_of(params))
    while True:
        done_B = np.asarray(state.done_B)
        alive = np.flatnonzero(~done_B)
        finished = len(alive) == 0 or int(state.step) >= C
        size = fit(max(len(alive), 1), sizes)
        if finished or size < len(done_B):
            real = rows_B >= 0
            answers_BC[rows_B[real]] = np.asarray(state.answers_BC)[real]
        if finished:
            return answers_BC
        if size < len(done_B):
            filling = np.flatnonzero(done_B)[: size - len(alive)]
            state = take_rows(state, parallel.put(np.concatenate([alive, filling]), sharding))
            rows_B = np.concatenate([rows_B[alive], np.full(len(filling), -1)])
        state = decode_chunk(model, params, state, warp=warp, end_tokens=end_tokens)


def cut(answer_C: np.ndarray, end_tokens: tuple[int, ...]) -> list[int]:
    """The tokens up to and with the first end token."""
    ends = np.flatnonzero(np.isin(answer_C, end_tokens))
    return answer_C[: ends[0] + 1 if len(ends) else len(answer_C)].tolist()


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
    on_progress: Any = None,
) -> list[list[list[int]]]:
    """Sample n answers to every prompt. Returns [question][sample] -> token ids, the end token included where one was drawn.

    params: laid out for decoding. max_rows: rows decoded at once on each data shard. capacity: the most questions that will come in one call
    (all of these, when None): batch sizes are taken from it, so that later calls with fewer questions compile nothing new.
    on_progress: called with the number of questions finished.
    """
    mesh = parallel.mesh_of(params)
    shards = mesh.shape["data"]
    Q = len(prompts.tokens_QP)
    per_batch = max(1, min(capacity or Q, max_rows * shards // num_samples))
    question_sizes = ladder(per_batch, shards, shards)
    row_sizes = sorted({s * num_samples for s in question_sizes} | set(ladder(question_sizes[0] * num_samples, shards, max(MIN_ROWS, shards))))
    answers: list[list[list[int]]] = []
    for start in range(0, Q, per_batch):
        part = Prompts(*(x[start : start + per_batch] for x in prompts))
        count = len(part.tokens_QP)
        size = fit(count, question_sizes)
        padded = Prompts(*(np.concatenate([x, np.repeat(x[:1], size - count, axis=0)]) for x in part))
        inputs = parallel.put((padded, np.arange(size) < count), parallel.rows(mesh))
        state = prefill(
            model, params, *inputs, seed, round_index, warp=warp, num_samples=num_samples, max_new_tokens=max_new_tokens, end_tokens=end_tokens
        )
        tokens_BC = decode_rows(model, params, state, row_sizes, warp, end_tokens)
        tokens_QSC = tokens_BC.reshape(size, num_samples, -1)[:count]
        answers += [[cut(row, end_tokens) for row in samples] for samples in tokens_QSC]
        if on_progress:
            on_progress(len(answers))
    return answers
