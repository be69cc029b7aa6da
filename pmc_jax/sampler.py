"""prompts -> answers: each question is prefilled once, n samples share its cache, and all rows decode together in jitted chunks (decode.py).

Between chunks the host looks at which rows are done, or have lost (contest.py); an accelerator draws the next chunk meanwhile. When few are left
they move into a smaller batch with more slots for their answers (and take a copy of their prefix along). Rows that outgrow their slots go on in a
few smaller batches, or, where they are too many for that, with twice the slots: attention reads no more than it must. Sizes and slots are few
(sizes.py), since each is a program to compile.
A draw is keyed by (seed, round, question, sample, position): it does not depend on batching, compaction, device count or resume.
"""

import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pmc_jax import parallel, sizes
from pmc_jax.decode import CHUNK, Prompts, State, decode_chunk, grow, prefill, regroup
from pmc_jax.draw import Warp
from pmc_jax.models import Decoder
from pmc_jax.sizes import Rung, batches_below, cut_batches, ladder, round_up

ANSWERS = 4  # first word of a numpy seed, after those of collapse.py: these streams never meet
PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that several sets of them share a compiled shape


class Seen(NamedTuple):
    """One row between two chunks: its tokens so far, what was drawn after an end token included, and whether it has drawn one."""

    tokens: list[int]
    done: bool


Losers = Callable[[dict[int, Seen]], set[int]]  # {row: what is seen of it} -> the rows that need not go on; row = question * samples + sample


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


def row_uniforms(keys_Q: np.ndarray, seed: int, round_index: int, num_samples: int, most: int) -> np.ndarray:
    """All that is random in the answers of Q questions: two numbers from [0, 1) a token, float32 [Q * n, L, 2], question-major, L >= most.

    A stream a row, by (seed, round, question, sample), of which a shorter answer takes the first numbers. Drawn on the host: so it is no program.
    """
    numbers = itertools.product(keys_Q.tolist(), range(num_samples))
    streams = (np.random.default_rng((ANSWERS, seed % 2**32, round_index, *number)) for number in numbers)
    return np.stack([stream.random((round_up(most, CHUNK), 2), np.float32) for stream in streams])


class Found(NamedTuple):
    """What the host looks at of a state."""

    step: jax.Array
    done_B: jax.Array
    answers_BC: jax.Array


def found_in(state: State) -> Found:
    """What there is to look at now; a chunk that takes the state takes it too."""
    return Found(state.step, state.done_B, state.answers_BC)


class Decoding(NamedTuple):
    """A batch between two chunks, the last of which the device may still be at."""

    state: State
    step: int  # tokens drawn when it is done with that
    rows_B: np.ndarray  # which row each is, -1: nobody's any more
    first_B: np.ndarray  # which row of the first batch each is, or is a copy of: it takes that one's random numbers
    rungs: list[Rung]  # its own size, and the smaller ones


def close(batch: Decoding, found: Found, most: int, losers: Losers | None, end_tokens: tuple[int, ...]) -> tuple[Decoding, dict[int, list[int]]]:
    """The batch without the rows that are done, have `most` tokens or have lost by what was found; and {row: its tokens} of these."""
    state, rows_B = batch.state, batch.rows_B
    step, done_B, answers_BC = parallel.gather(found)
    seen = {int(rows_B[b]): Seen(answers_BC[b, :step].tolist(), bool(done_B[b] or step >= most)) for b in np.flatnonzero(rows_B >= 0)}
    lost = losers(seen) if losers else set()
    closed = {row for row, of_row in seen.items() if of_row.done} | lost
    rows_B = np.where(np.isin(rows_B, list(closed)), -1, rows_B)
    if lost:  # a row may have ended since what was found
        state = state._replace(done_B=state.done_B | parallel.put(rows_B < 0, state.done_B.sharding))
    return batch._replace(state=state, rows_B=rows_B), {row: cut(seen[row].tokens, end_tokens) for row in closed}


def move(batch: Decoding, most: int, sharding: NamedSharding) -> list[Decoding]:
    """The batches in which the batch's rows go on: itself, with more slots where they are full, or ones of a smaller size; none without rows."""
    alive, slots = np.flatnonzero(batch.rows_B >= 0), batch.state.answers_BC.shape[1]
    if not len(alive):
        return []
    if batch.step == most:  # nothing more to draw: its rows are only to be closed
        return [batch]
    full, below = batch.step == slots, batch.rungs[1:]
    count = batches_below(len(alive), full, below[0]) if below else 0
    if not count:
        return [batch._replace(state=grow(batch.state, min(2 * slots, most)))] if full else [batch]
    found = []
    for part in np.array_split(alive, count):
        kept = np.resize(part, below[0].rows)  # filled up with copies, which end when theirs do
        rows_B = np.where(np.arange(len(kept)) < len(part), batch.rows_B[kept], -1)
        state = regroup(batch.state, parallel.put(kept, sharding), max(below[0].slots, slots))
        found += move(Decoding(state, batch.step, rows_B, batch.first_B[kept], below), most, sharding)  # size by size
    return found


def decode_rows(
    model: Decoder,
    params: Any,
    state: State,
    uniform_BL2: np.ndarray,
    rows: range,
    most: int,
    rungs: list[Rung],
    losers: Losers | None,
    ahead: bool,
    **how,
) -> dict[int, list[int]]:
    """Run chunks until every row is done, has `most` tokens or has lost, moving to smaller batches between them. Returns {row: its tokens}.

    uniform_BL2: the random numbers of the state's rows, of all steps (`row_uniforms`).
    ahead: the device draws a chunk while the host looks at what was there before it, so that a row is closed a chunk late.
    """
    answers: dict[int, list[int]] = {}
    sharding = parallel.rows(parallel.mesh_of(params))
    first_B = np.arange(state.done_B.shape[0])
    batches = [Decoding(state, 1, np.where(first_B < len(rows), rows.start + first_B, -1), first_B, rungs)]
    while batches:
        batch = batches.pop()
        before = Found(*map(jnp.copy, found_in(batch.state))) if ahead else None
        if batch.step < most:
            begun = batch.step // CHUNK * CHUNK
            last = min(begun + CHUNK, batch.state.answers_BC.shape[1])
            uniform_BT2 = parallel.put(uniform_BL2[batch.first_B, begun : begun + CHUNK], sharding)
            batch = batch._replace(state=decode_chunk(model, params, batch.state, uniform_BT2, last, **how), step=last)
        batch, closed = close(batch, before or found_in(batch.state), most, losers, how["end_tokens"])
        answers |= closed
        batches += move(batch, most, sharding)
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
        uniform_BL2 = row_uniforms(padded.keys_Q, seed, round_index, num_samples, max_new_tokens)
        state = prefill(model, params, *inputs, parallel.put(uniform_BL2[:, 0], parallel.rows(mesh)), **shape, **how)
        rows = range(start * num_samples, (start + count) * num_samples)
        ahead = limits.ahead and losers is not None
        found = decode_rows(model, params, state, uniform_BL2, rows, max_new_tokens, rungs, losers, ahead, **how)
        answers += [[found[row] for row in rows[at : at + num_samples]] for at in range(0, len(rows), num_samples)]
        if on_progress:
            on_progress(len(answers))
    return answers
