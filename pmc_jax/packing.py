"""Training rows -> packed arrays of one compiled shape.

    first row:    prefix | example | example | padding        segments: 1 1 2 2 2 3 3 3 0 0
    other rows:   example | example | example | padding                 2 2 2 3 3 4 4 4 4 0
    each example looks at the prefix that all share, there once (on each data shard), and at itself. Labels are answer tokens only.

A batch that needs more room than the shape has is cut into micro-batches of that shape: one program serves every batch.
"""

from typing import NamedTuple

import numpy as np

LENGTH_MULTIPLE = 32  # positions of a packed row
LABEL_MULTIPLE = 32
LENGTH_OF_EQUAL_COST = 800  # positions at which a row's attention costs about as much as all else; only weighs row lengths against each other


class Row(NamedTuple):
    """One training example. tokens: prompt + answer. start: where the answer begins. group: 1 forget, 2 retain."""

    tokens: list[int]
    start: int
    group: int


class Batch(NamedTuple):
    """Packed rows. M micro-batches, R rows of T positions, S data shards with A labels each.

    prefix_P: the tokens that all examples begin with; they lie at the front of each shard's first row.
    segments_MRT: 0 padding, 1 the prefix, 2.. one number an example.
    at_MSA: where each label is predicted, an index into a shard's R / S * T positions. group_MSA: 0 no label, 1 forget, 2 retain.
    counts_2: forget and retain labels in the whole global batch, float32; 1 where there are none. used: micro-batches that hold anything.
    """

    prefix_P: np.ndarray
    tokens_MRT: np.ndarray
    positions_MRT: np.ndarray
    segments_MRT: np.ndarray
    at_MSA: np.ndarray
    labels_MSA: np.ndarray
    group_MSA: np.ndarray
    counts_2: np.ndarray
    used: np.ndarray


class Packing(NamedTuple):
    """The shape that batches are packed into: shared leading tokens, positions a row, rows and labels a shard of a micro-batch."""

    prefix: int
    length: int
    rows: int
    labels: int


def common_prefix(rows: list[Row]) -> int:
    """How many leading prompt tokens all rows share; at least one prompt token stays with each row."""
    shortest = min(r.start for r in rows) - 1
    first = rows[0].tokens
    for at in range(shortest):
        if any(r.tokens[at] != first[at] for r in rows):
            return at
    return max(shortest, 0)


def fill_bins(lengths: list[int], room: int, taken: int) -> list[list[int]]:
    """First-fit decreasing: indices of examples, bin by bin; every bin holds at most `room` tokens, the first one `taken` fewer."""
    bins: list[list[int]] = [[]]
    left = [room - taken]
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = next((b for b, free in enumerate(left) if free >= lengths[i]), None)
        if at is None:
            bins.append([])
            left.append(room)
            at = len(bins) - 1
        bins[at].append(i)
        left[at] -= lengths[i]
    return bins


def deal(rows: list[Row], parts: int) -> list[list[Row]]:
    """Rows over `parts`, longest first to the part with the fewest tokens."""
    dealt: list[list[Row]] = [[] for _ in range(parts)]
    for row in sorted(rows, key=lambda r: -len(r.tokens)):
        min(dealt, key=lambda p: sum(len(r.tokens) for r in p)).append(row)
    return dealt


def need(rows: list[Row], prefix: int, length: int) -> tuple[int, int]:
    """How many packed rows and labels one shard's examples take."""
    bins = fill_bins([len(r.tokens) - prefix for r in rows], length, prefix)
    return len(bins), sum(len(r.tokens) - r.start for r in rows)


def plan_packing(batches: list[list[Row]], longest: int, prefix: int, shards: int, micro_batches: int) -> Packing:
    """The row length, rows and labels that hold nine of ten of these typical batches in `micro_batches` with the least padding.

    longest: tokens of the longest example, which must fit in a row.
    """
    best = None
    for length in range(_round_up(longest, LENGTH_MULTIPLE), 2 * longest + LENGTH_MULTIPLE, LENGTH_MULTIPLE):
        needs = [np.max([need(part, prefix, length) for part in deal(b, micro_batches * shards)], axis=0) for b in batches]
        rows, labels = (int(np.quantile(column, 0.9, method="higher")) for column in np.array(needs).T)
        cost = rows * length * (1 + length / LENGTH_OF_EQUAL_COST)
        if best is None or cost < best[0]:
            best = cost, Packing(prefix, length, rows, _round_up(max(labels, longest), LABEL_MULTIPLE))
    return best[1]


def pack(rows: list[Row], packing: Packing, shards: int = 1, micro_batches: int = 1) -> Batch:
    """Pack examples into `micro_batches` micro-batches, or into more where they do not fit; room for twice as many is always there.

    The loss over a packed batch equals the loss over the same examples one a row. Raises ValueError for an example longer than a row.
    """
    longest = max(len(r.tokens) for r in rows)
    if longest > min(packing.length, packing.labels):
        raise ValueError(f"an example has {longest} tokens; the packing has rows of {packing.length} and {packing.labels} labels")
    used = micro_batches
    while not all(np.all(np.array(need(p, *packing[:2])) <= packing[2:]) for p in deal(rows, used * shards)):
        used += 1
    parts = deal(rows, used * shards)
    slots = max(used, 2 * micro_batches) * shards
    packed = [_pack_shard(part, packing) for part in parts + [[]] * (slots - len(parts))]
    prefix_P = np.array(rows[0].tokens[: packing.prefix], np.int32)
    fields = [np.stack(x).reshape(slots // shards, -1, x[0].shape[-1]) for x in zip(*packed)]
    counts = np.array([max(1, np.sum(fields[-1] == g)) for g in (1, 2)], np.float32)
    return Batch(prefix_P, *fields, counts, np.int32(used))


def _pack_shard(rows: list[Row], packing: Packing) -> tuple[np.ndarray, ...]:
    """One shard's arrays: tokens, positions, segments [R, T]; at, labels, group [1, A]."""
    prefix = packing.prefix
    tokens, positions, segments = (np.zeros((packing.rows, packing.length), np.int32) for _ in range(3))
    at, labels, group = (np.zeros((1, packing.labels), np.int32) for _ in range(3))
    if rows:
        tokens[0, :prefix], positions[0, :prefix], segments[0, :prefix] = rows[0].tokens[:prefix], np.arange(prefix), 1
    filled = 0
    for r, members in enumerate(fill_bins([len(x.tokens) - prefix for x in rows], packing.length, prefix)):
        end = 0 if r else prefix
        for number, i in enumerate(members):
            own, start = rows[i].tokens[prefix:], rows[i].start - prefix
            here = slice(end, end + len(own))
            tokens[r, here], positions[r, here], segments[r, here] = own, prefix + np.arange(len(own)), 2 + number
            n = len(own) - start
            at[0, filled : filled + n] = r * packing.length + end + start - 1 + np.arange(n)
            labels[0, filled : filled + n], group[0, filled : filled + n] = own[start:], rows[i].group
            filled, end = filled + n, end + len(own)
    return tokens, positions, segments, at, labels, group


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
