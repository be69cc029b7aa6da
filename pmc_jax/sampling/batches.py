"""Between two chunks, on the host: rows that are finished are retired, and the others are compacted into smaller
batches.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from pmc_jax.distributed import meshes
from pmc_jax.sampling.buckets import Bucket, smaller_batches
from pmc_jax.sampling.decode import CHUNK, DecodeState, grow, select_rows


class Seen(NamedTuple):
    """One row between two chunks.

    Attributes:
        tokens: its answer so far, with what was drawn after an end token.
        done: whether it has drawn an end token, or as many tokens as it may have.
    """

    tokens: list[int]
    done: bool


# {row: what is seen of it} -> the rows that need not go on; row = question * samples + sample.
Pruner = Callable[[dict[int, Seen]], set[int]]


class Snapshot(NamedTuple):
    """What the host looks at of a state: `DecodeState`'s fields of these names."""

    step: jax.Array
    done_B: jax.Array
    tokens_BC: jax.Array


def snapshot(state: DecodeState) -> Snapshot:
    """What there is to look at now. A chunk that the state is donated to takes it too."""
    return Snapshot(state.step, state.done_B, state.tokens_BC)


class Origins(NamedTuple):
    """What the rows of a first, full batch bring along wherever they are moved.

    Attributes:
        accepted: of each row, the tokens of its draft that it accepts.
        uniform_BL2: float32, the random numbers of each row's tokens.
    """

    accepted: list[list[int]]
    uniform_BL2: np.ndarray

    def uniforms(self, origin_B: np.ndarray, step: int) -> np.ndarray:
        """The numbers of CHUNK decoded tokens from number `step` on, [B, CHUNK, 2]; any beyond the longest answer."""
        position_B = np.array([len(self.accepted[row]) for row in origin_B]) + step
        position_BT = np.minimum(position_B[:, None] + np.arange(CHUNK), self.uniform_BL2.shape[1] - 1)
        return self.uniform_BL2[origin_B[:, None], position_BT]


class DecodeBatch(NamedTuple):
    """A batch between two chunks. The device may still be at the last one.

    Attributes:
        state: on the devices.
        step: decoded tokens of each row when the device is done with that chunk.
        rows_B: which row of the call each is, -1 = padding, or a retired row.
        origin_B: which row of the first batch each is, or is a copy of (`Origins`).
        buckets: its own size, then the smaller ones.
    """

    state: DecodeState
    step: int
    rows_B: np.ndarray
    origin_B: np.ndarray
    buckets: list[Bucket]


def retire(
    batch: DecodeBatch,
    seen_state: Snapshot,
    origins: Origins,
    max_new_tokens: int,
    end_tokens: tuple[int, ...],
    prune: Pruner | None,
) -> tuple[DecodeBatch, dict[int, list[int]]]:
    """Take the rows out of a batch that are done, have `max_new_tokens` tokens or are pruned.

    Args:
        batch: any.
        seen_state: what is decided by; it may be a chunk older than the batch.
        origins: of the batch's rows.
        max_new_tokens: longest answer, tokens.
        end_tokens: ids that end an answer.
        prune: which of the rows need not go on; None = all others do.

    Returns:
        The batch, whose retired rows are nobody's, and {row: its answer's tokens} of these.
    """
    step, done_B, tokens_BC = meshes.gather(seen_state)
    seen = {}
    for b in np.flatnonzero(batch.rows_B >= 0):
        tokens = (origins.accepted[batch.origin_B[b]] + tokens_BC[b, :step].tolist())[:max_new_tokens]
        seen[int(batch.rows_B[b])] = Seen(tokens, bool(done_B[b] or len(tokens) == max_new_tokens))
    pruned = prune(seen) if prune else set()
    retired = {row for row, row_seen in seen.items() if row_seen.done} | pruned
    state, rows_B = batch.state, np.where(np.isin(batch.rows_B, list(retired)), -1, batch.rows_B)
    # A row that the device does not know to be done. Another row may have ended since the snapshot.
    if not np.all(done_B | (rows_B >= 0)):
        state = state._replace(done_B=state.done_B | meshes.put(rows_B < 0, state.done_B.sharding))
    return batch._replace(state=state, rows_B=rows_B), {row: cut(seen[row].tokens, end_tokens) for row in retired}


def compact(batch: DecodeBatch, max_new_tokens: int, sharding: NamedSharding) -> list[DecodeBatch]:
    """The batches in which a batch's rows go on.

    That is the batch itself, with twice the slots where they are all taken, or one or a few of a smaller bucket. Slots
    only grow with need, since attention reads all of them.

    Args:
        batch: any.
        max_new_tokens: slots that no batch needs more of.
        sharding: of the rows.

    Returns:
        No batch when no row is left.
    """
    alive, slots = np.flatnonzero(batch.rows_B >= 0), batch.state.tokens_BC.shape[1]
    if not len(alive):
        return []
    if batch.step == max_new_tokens:  # nothing more to decode: its rows are only to be retired
        return [batch]
    full, (bucket, *smaller) = batch.step == slots, batch.buckets
    groups = group_rows(alive, bucket.sharing, smaller[0].sharing) if smaller else []
    count = smaller_batches(len(groups) * smaller[0].sharing, full, smaller[0]) if smaller else 0
    if not count:
        return [batch._replace(state=grow(batch.state, min(2 * slots, max_new_tokens)))] if full else [batch]
    compacted = []
    for part in np.array_split(np.stack(groups), count):
        kept = np.resize(part, smaller[0].rows)  # filled up with copies, which are nobody's
        _, first_index = np.unique(kept, return_index=True)
        rows_B = np.full(len(kept), -1)
        rows_B[first_index] = batch.rows_B[kept[first_index]]
        indices_B = meshes.put(kept, sharding)
        state = select_rows(batch.state, indices_B, max(smaller[0].slots, slots), smaller[0].sharing)
        moved = DecodeBatch(state, batch.step, rows_B, batch.origin_B[kept], smaller)
        compacted += compact(moved, max_new_tokens, sharding)  # bucket by bucket
    return compacted


def group_rows(alive: np.ndarray, rows_together: int, sharing: int) -> list[np.ndarray]:
    """The rows that are left, in groups of `sharing` rows of one question, filled up with copies.

    Args:
        alive: indices of the rows, ascending.
        rows_together: so many rows side by side are of one question now.
        sharing: rows of a new group.
    """
    groups = []
    for _, question_rows in itertools.groupby(alive, key=lambda row: row // rows_together):
        rows = np.array(list(question_rows))
        groups += [np.resize(rows[start : start + sharing], sharing) for start in range(0, len(rows), sharing)]
    return groups


def cut(tokens: list[int], end_tokens: tuple[int, ...]) -> list[int]:
    """The tokens up to and with the first end token."""
    ends = [tokens.index(e) for e in end_tokens if e in tokens]
    return tokens[: min(ends) + 1] if ends else tokens
