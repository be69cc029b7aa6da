"""Training rows -> packed arrays of one compiled shape.

    block 0:   prefix | example | exam       segments: 1 1 1 2 2 2 2 3 3
    block 1:   ple | example | exampl                  3 3 4 4 4 4 5 5 5
    block 2:   e | example | padding                   5 6 6 6 6 0 0 0 0

Examples stand one after the other in a stream of blocks, each within two neighbouring blocks. A block looks at itself
and at the one before it, and there at its own example only; the prefix that all examples share is there once (on each
data shard). Labels are answer tokens only.

A batch that needs more room than the shape has is cut into micro-batches of that shape: one program serves every batch.
"""

import heapq
from typing import NamedTuple

import numpy as np

LENGTH_MULTIPLE = 32  # positions of a block
LABEL_MULTIPLE = 32


class Row(NamedTuple):
    """One training example. tokens: prompt + answer. start: where the answer begins. group: 1 forget, 2 retain."""

    tokens: list[int]
    start: int
    group: int


class Batch(NamedTuple):
    """Packed rows. M micro-batches, R blocks of T positions, S data shards with A labels and R / S blocks each.

    prefix_P: the tokens that all examples begin with; they lie at the front of each shard's first block.
    segments_MRT: 0 padding, 1 the prefix, 2.. one number an example of a shard.
    at_MSA: where each label is predicted, an index into a shard's R / S * T positions. group_MSA: 0 no label, 1 forget,
    2 retain.
    counts_2: forget and retain labels in the whole global batch, float32; 1 where there are none. used: micro-batches
    that hold anything.
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
    """The shape that batches are packed into: shared leading tokens, positions a block, blocks and labels a shard of a
    micro-batch, and how many micro-batches a typical batch needs.
    """

    prefix: int
    length: int
    rows: int
    labels: int
    micro_batches: int = 1

    @property
    def longest(self) -> int:
        """Tokens of the longest example that fits."""
        return min(self.prefix + 2 * self.length, self.rows * self.length, self.labels)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def common_prefix(rows: list[Row]) -> int:
    """How many leading prompt tokens all rows share; at least one prompt token stays with each row."""
    shortest = min(r.start for r in rows) - 1
    first = rows[0].tokens
    for at in range(shortest):
        if any(r.tokens[at] != first[at] for r in rows):
            return at
    return max(shortest, 0)


def place(lengths: list[int], block: int, start: int) -> tuple[list[int], int]:
    """Where each example begins in the stream, and where the last one ends: from `start` on, the longest first that
    ends within two blocks.
    """
    at, found = start, [0] * len(lengths)
    left = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while left:
        fits = next((n for n, i in enumerate(left) if at % block + lengths[i] <= 2 * block), None)
        if fits is None:
            at += -at % block
            continue
        found[left[fits]] = at
        at += lengths[left.pop(fits)]
    return found, at


def deal(rows: list[Row], parts: int) -> list[list[Row]]:
    """Rows over `parts`, longest first to the part with the fewest tokens."""
    dealt: list[list[Row]] = [[] for _ in range(parts)]
    fewest = [(0, part) for part in range(parts)]
    for row in sorted(rows, key=lambda r: -len(r.tokens)):
        tokens, part = fewest[0]
        dealt[part].append(row)
        heapq.heapreplace(fewest, (tokens + len(row.tokens), part))
    return dealt


def need(rows: list[Row], prefix: int, length: int) -> tuple[int, int]:
    """How many blocks and labels one shard's examples take."""
    _, end = place([len(r.tokens) - prefix for r in rows], length, prefix)
    return max(1, -(-end // length)), sum(len(r.tokens) - r.start for r in rows)


def plan_packing(batches: list[list[Row]], longest: int, prefix: int, shards: int, micro_batches: int) -> Packing:
    """Blocks as short as the longest example allows, and as many blocks and labels as nine of ten of these typical
    batches need in `micro_batches`.

    longest: tokens of the longest example, the prefix included.
    """
    length = round_up(max(prefix, -(-(longest - prefix) // 2)), LENGTH_MULTIPLE)
    needs = [np.max([need(part, prefix, length) for part in deal(b, micro_batches * shards)], axis=0) for b in batches]
    rows, labels = (int(np.quantile(column, 0.9, method="higher")) for column in np.array(needs).T)
    rows = max(rows, -(-longest // length))
    return Packing(prefix, length, rows, round_up(max(labels, longest), LABEL_MULTIPLE), micro_batches)


def pack(rows: list[Row], packing: Packing, shards: int = 1) -> Batch:
    """Pack examples into as few micro-batches as hold them; there is always room for twice as many as the packing
    names.

    The loss over a packed batch equals the loss over the same examples one a row. Raises ValueError for an example
    longer than what fits.
    """
    longest = max(len(r.tokens) for r in rows)
    if longest > packing.longest:
        raise ValueError(f"an example has {longest} tokens; the packing has room for {packing.longest}")
    used = max(1, sum(len(r.tokens) - packing.prefix for r in rows) // (packing.rows * packing.length * shards))
    while None in (packed := [_pack_shard(part, packing) for part in deal(rows, used * shards)]):
        used += 1
    slots = max(used, 2 * packing.micro_batches) * shards
    packed += [_pack_shard([], packing)] * (slots - len(packed))
    prefix_P = np.array(rows[0].tokens[: packing.prefix], np.int32)
    fields = [np.stack(x).reshape(slots // shards, -1, x[0].shape[-1]) for x in zip(*packed)]
    counts = np.array([max(1, np.sum(fields[-1] == g)) for g in (1, 2)], np.float32)
    return Batch(prefix_P, *fields, counts, np.int32(used))


def _pack_shard(rows: list[Row], packing: Packing) -> tuple[np.ndarray, ...] | None:
    """One shard's arrays: tokens, positions, segments [R, T]; at, labels, group [1, A]. None where there is no room for
    them.
    """
    prefix, size = packing.prefix, packing.rows * packing.length
    begins, end = place([len(x.tokens) - prefix for x in rows], packing.length, prefix)
    if end > size or sum(len(r.tokens) - r.start for r in rows) > packing.labels:
        return None
    tokens, positions, segments = (np.zeros(size, np.int32) for _ in range(3))
    at, labels, group = (np.zeros((1, packing.labels), np.int32) for _ in range(3))
    if rows:
        tokens[:prefix], positions[:prefix], segments[:prefix] = rows[0].tokens[:prefix], np.arange(prefix), 1
    filled = 0
    for number, (row, begin) in enumerate(zip(rows, begins)):
        own, start = row.tokens[prefix:], row.start - prefix
        here = slice(begin, begin + len(own))
        tokens[here], positions[here], segments[here] = own, prefix + np.arange(len(own)), 2 + number
        n = len(own) - start
        at[0, filled : filled + n] = begin + start - 1 + np.arange(n)
        labels[0, filled : filled + n], group[0, filled : filled + n] = own[start:], row.group
        filled += n
    return *(x.reshape(packing.rows, packing.length) for x in (tokens, positions, segments)), at, labels, group
