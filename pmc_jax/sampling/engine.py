"""prompts -> answers: each question is prefilled once, n samples share its cache, and all rows decode together in
jitted chunks (decode.py).

Between chunks the host looks at which rows are done, or have lost (contest.py); an accelerator draws the next chunk
meanwhile. When few are left they move into a smaller batch with more slots for their answers (and take a copy of their
prefix along). Rows that outgrow their slots go on in a few smaller batches, or, where they are too many for that, with
twice the slots: attention reads no more than it must. Sizes and slots are few (sizes.py), since each is a program to
compile. A draw is keyed by (seed, round, question, sample, position): it does not depend on batching, compaction,
device count or resume.
"""

import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.sampling import buckets
from pmc_jax.sampling.buckets import Bucket, batch_buckets, batches_below, cut_batches, round_up
from pmc_jax.sampling.decode import CHUNK, Prompts, State, decode_chunk, grow, prefill, regroup
from pmc_jax.sampling.draw import SamplingParams

ANSWERS = 4  # first word of a numpy seed, after those of collapse.py: these streams never meet
PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that several sets of them share a compiled shape
DRAFT_MULTIPLE = 8
DRAFT_SHARE = 0.75  # so many of the drafts are read whole: rows leave the longest ones before their end, mostly


class Seen(NamedTuple):
    """One row between two chunks: its tokens so far, what was drawn after an end token included, and whether it has
    drawn one.
    """

    tokens: list[int]
    done: bool


Pruner = Callable[
    [dict[int, Seen]], set[int]
]  # {row: what is seen of it} -> the rows that need not go on; row = question * samples + sample


def device_limits(mesh: Mesh) -> buckets.Limits:
    """What the mesh's devices want."""
    return buckets.CPU if meshes.on_cpu(mesh) else buckets.ACCELERATOR


def question_key(text: str) -> int:
    """A stable 32-bit number of a question's text: its draws are the same alone or among others, in any order."""
    return zlib.crc32(text.encode())


def left_pad(token_lists: list[list[int]], texts: list[str], multiple: int = PROMPT_MULTIPLE) -> Prompts:
    """Prompts without drafts from ragged token lists, padded to the longest, rounded up."""
    width = round_up(max(map(len, token_lists)), multiple)
    tokens, mask = np.zeros((len(token_lists), width), np.int32), np.zeros((len(token_lists), width), bool)
    for row, ids in enumerate(token_lists):
        tokens[row, width - len(ids) :] = ids
        mask[row, width - len(ids) :] = True
    return Prompts(
        tokens,
        mask,
        np.array([question_key(t) for t in texts], np.uint32),
        np.full((len(token_lists), 1), -1, np.int32),
    )


def with_drafts(prompts: Prompts, drafts: list[list[int]], end_tokens: tuple[int, ...], most: int) -> Prompts:
    """The prompts with an answer each that their samples may well begin with. What is sampled is the same: only
    quicker, if they do.

    most: tokens that an answer may have.
    """
    slots = draft_slots([len(d) for d in drafts], most)
    drafts_QA = np.full((len(drafts), slots), -1, np.int32)
    for row, ids in enumerate(drafts):
        drafts_QA[row, : len(ids)] = ids[:slots]
    drafts_QA[:, -1] = np.where(np.isin(drafts_QA[:, -1], end_tokens), drafts_QA[:, -1], -1)
    return prompts._replace(drafts_QA=drafts_QA)


def agreed(draft_A: np.ndarray, tokens: list[int]) -> int:
    """How many tokens an answer has of its draft, from the first one on."""
    most = min(len(tokens), len(draft_A))
    return int(np.cumprod(np.equal(tokens[:most], draft_A[:most])).sum())


def draft_slots(lengths: list[int], most: int) -> int:
    """Slots for drafts of these lengths; all but the last one are read."""
    longest = int(np.quantile(lengths, DRAFT_SHARE, method="higher"))
    return min(round_up(max(1, longest - 1), DRAFT_MULTIPLE) + 1, most)


def row_uniforms(keys_Q: np.ndarray, seed: int, round_index: int, num_samples: int, most: int) -> np.ndarray:
    """All that is random in the answers of Q questions: two numbers from [0, 1) a token, float32 [Q * n, L, 2],
    question-major, L >= most.

    A stream a row, by (seed, round, question, sample), of which a shorter answer takes the first numbers. Drawn on the
    host: so it is no program.
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


class Begun(NamedTuple):
    """What the rows of a batch keep wherever they move. begins: what each has of its draft. uniform_BL2: the random
    numbers of all its tokens.
    """

    begins: list[list[int]]
    uniform_BL2: np.ndarray

    def uniforms(self, first_B: np.ndarray, step: int) -> np.ndarray:
        """Those of the CHUNK own tokens from number `step` on [B, CHUNK, 2]; beyond the longest answer, whatever."""
        at_B = np.array([len(self.begins[row]) for row in first_B]) + step
        at_BT = np.minimum(at_B[:, None] + np.arange(CHUNK), self.uniform_BL2.shape[1] - 1)
        return self.uniform_BL2[first_B[:, None], at_BT]


class Decoding(NamedTuple):
    """A batch between two chunks, the last of which the device may still be at."""

    state: State
    step: int  # own tokens of each row when it is done with that
    rows_B: np.ndarray  # which row each is, -1: nobody's any more
    first_B: np.ndarray  # which row of the first batch each is, or is a copy of: what it has `Begun` with
    buckets_: list[Bucket]  # its own size, and the smaller ones


def close(
    batch: Decoding, found: Found, begun: Begun, most: int, prune: Pruner | None, end_tokens: tuple[int, ...]
) -> tuple[Decoding, dict[int, list[int]]]:
    """The batch without the rows that are done, have `most` tokens or have lost by what was found; and {row: its
    tokens} of these.
    """
    state, rows_B = batch.state, batch.rows_B
    step, done_B, answers_BC = meshes.gather(found)
    seen = {}
    for b in np.flatnonzero(rows_B >= 0):
        tokens = (begun.begins[batch.first_B[b]] + answers_BC[b, :step].tolist())[:most]
        seen[int(rows_B[b])] = Seen(tokens, bool(done_B[b] or len(tokens) == most))
    lost = prune(seen) if prune else set()
    closed = {row for row, of_row in seen.items() if of_row.done} | lost
    rows_B = np.where(np.isin(rows_B, list(closed)), -1, rows_B)
    if not np.all(
        done_B | (rows_B >= 0)
    ):  # one that the device does not know to be done; another may have ended since what was found
        state = state._replace(done_B=state.done_B | meshes.put(rows_B < 0, state.done_B.sharding))
    return batch._replace(state=state, rows_B=rows_B), {row: cut(seen[row].tokens, end_tokens) for row in closed}


def move(batch: Decoding, most: int, sharding: NamedSharding) -> list[Decoding]:
    """The batches in which the batch's rows go on: itself, with more slots where they are full, or ones of a smaller
    size; none without rows.
    """
    alive, slots = np.flatnonzero(batch.rows_B >= 0), batch.state.answers_BC.shape[1]
    if not len(alive):
        return []
    if batch.step == most:  # nothing more to draw: its rows are only to be closed
        return [batch]
    full, below = batch.step == slots, batch.buckets_[1:]
    groups = together(alive, batch.buckets_[0].sharing, below[0].sharing) if below else []
    count = batches_below(len(groups) * below[0].sharing, full, below[0]) if below else 0
    if not count:
        return [batch._replace(state=grow(batch.state, min(2 * slots, most)))] if full else [batch]
    found = []
    for part in np.array_split(np.stack(groups), count):
        kept = np.resize(part, below[0].rows)  # filled up with copies
        _, first_at = np.unique(kept, return_index=True)
        rows_B = np.full(len(kept), -1)
        rows_B[first_at] = batch.rows_B[kept[first_at]]
        state = regroup(batch.state, meshes.put(kept, sharding), max(below[0].slots, slots), below[0].sharing)
        found += move(Decoding(state, batch.step, rows_B, batch.first_B[kept], below), most, sharding)  # size by size
    return found


def together(alive: np.ndarray, before: int, sharing: int) -> list[np.ndarray]:
    """The rows `alive` in groups of `sharing` of one question, filled up with copies. before: so many rows side by side
    are of one question now.
    """
    found = []
    for _, rows in itertools.groupby(alive, key=lambda row: row // before):
        rows = np.array(list(rows))
        found += [np.resize(rows[at : at + sharing], sharing) for at in range(0, len(rows), sharing)]
    return found


def decode_rows(
    model: Decoder,
    params: Any,
    state: State,
    begun: Begun,
    rows: range,
    most: int,
    buckets_: list[Bucket],
    prune: Pruner | None,
    ahead: bool,
    **how,
) -> dict[int, list[int]]:
    """Run chunks until every row is done, has `most` tokens or has lost, moving to smaller batches between them.
    Returns {row: its tokens}.

    ahead: the device draws a chunk while the host looks at what was there before it, so that a row is closed a chunk
    late.
    """
    answers: dict[int, list[int]] = {}
    sharding = meshes.rows(meshes.mesh_of(params))

    def go_on(batch: Decoding, found: Found) -> list[Decoding]:
        batch, closed = close(batch, found, begun, most, prune, how["end_tokens"])
        answers.update(closed)
        return move(batch, most, sharding)

    first_B = np.arange(state.done_B.shape[0])
    # Many rows end with their draft, or have lost by then: looked at before the first chunk, whatever the device would
    # do meanwhile.
    first = Decoding(state, 1, np.where(first_B < len(rows), rows.start + first_B, -1), first_B, buckets_)
    batches = go_on(first, found_in(state))
    while batches:
        batch = batches.pop()
        before = Found(*map(jnp.copy, found_in(batch.state))) if ahead else None
        if batch.step < most:
            step = batch.step // CHUNK * CHUNK
            last = min(step + CHUNK, batch.state.answers_BC.shape[1])
            uniform_BT2 = meshes.put(begun.uniforms(batch.first_B, step), sharding)
            batch = batch._replace(state=decode_chunk(model, params, batch.state, uniform_BT2, last, **how), step=last)
        batches += go_on(batch, before or found_in(batch.state))
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
    sampling: SamplingParams,
    num_samples: int,
    max_new_tokens: int,
    end_tokens: tuple[int, ...],
    seed: int,
    round_index: int = 0,
    max_rows: int = 512,
    capacity: int | None = None,
    prune: Pruner | None = None,
    on_progress: Any = None,
) -> list[list[list[int]]]:
    """Sample n answers to every prompt. Returns [question][sample] -> token ids, the end token included where one was
    drawn.

    params: laid out for decoding. max_rows: rows decoded at once on each data shard. capacity: the most questions that
    will come in one call (all of these, when None): batch sizes are taken from it, so that later calls with fewer
    questions compile nothing new.
    prune: asked between chunks which rows need not go on; those keep what they have drawn.
    on_progress: called with the number of questions finished.
    """
    mesh = meshes.mesh_of(params)
    shards = mesh.shape["data"]
    Q = len(prompts.tokens_QP)
    limits, slots = device_limits(mesh), prompts.drafts_QA.shape[1]
    _, per_batch, size, parts, most_rows = cut_batches(
        capacity or Q, prompts.tokens_QP.shape[1] + slots - 1, num_samples, max_rows, shards, limits
    )
    buckets_ = batch_buckets(most_rows, shards, max_new_tokens, limits, num_samples, drafted=slots > 1)
    answers: list[list[list[int]]] = []
    for start in range(0, Q, per_batch):
        part = Prompts(*(x[start : start + per_batch] for x in prompts))
        count = len(part.tokens_QP)
        padded = Prompts(*(np.concatenate([x, np.repeat(x[:1], size - count, axis=0)]) for x in part))
        inputs = meshes.put((padded, np.arange(size) < count), meshes.rows(mesh))
        how = dict(sampling=sampling, end_tokens=end_tokens)
        shape = dict(
            num_samples=num_samples,
            first_slots=buckets_[0].slots,
            shards=shards,
            parts=parts,
            cache_at=meshes.cache(mesh),
        )
        uniform_BL2 = row_uniforms(padded.keys_Q, seed, round_index, num_samples, max_new_tokens)
        state, agreed_B = prefill(
            model, params, *inputs, meshes.put(uniform_BL2[:, :slots], meshes.rows(mesh)), **shape, **how
        )
        begins = [
            padded.drafts_QA[row // num_samples, :agreed].tolist() for row, agreed in enumerate(meshes.gather(agreed_B))
        ]
        rows = range(start * num_samples, (start + count) * num_samples)
        ahead = limits.ahead and prune is not None
        found = decode_rows(
            model, params, state, Begun(begins, uniform_BL2), rows, max_new_tokens, buckets_, prune, ahead, **how
        )
        answers += [[found[row] for row in rows[at : at + num_samples]] for at in range(0, len(rows), num_samples)]
        if on_progress:
            on_progress(len(answers))
    return answers
