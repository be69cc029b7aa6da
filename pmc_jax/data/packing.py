"""Training rows -> packed arrays of one compiled shape.

    block 0:   prefix | example | exam       segments: 1 1 1 2 2 2 2 3 3
    block 1:   ple | example | exampl                  3 3 4 4 4 4 5 5 5
    block 2:   e | example | padding                   5 6 6 6 6 0 0 0 0

Examples stand one after the other in a stream of blocks, each within two neighbouring blocks. A block looks at itself
and at the block before it, and there at its own example only. The prefix that all examples share is there once (on each
data shard). Labels are answer tokens only.

A batch that needs more room than the shape has is cut into micro-batches of that shape: one program serves every batch.
"""

import heapq
from typing import NamedTuple

import numpy as np

LENGTH_MULTIPLE = 32  # positions of a block
LABEL_MULTIPLE = 32
NO_LABEL, FORGET, RETAIN, REFUSAL = 0, 1, 2, 3  # the group of a label, and of an example
GROUPS = FORGET, RETAIN, REFUSAL  # what the last axis of counts per group stands for
NO_ROW = -1


class Row(NamedTuple):
    """One training example.

    Attributes:
        tokens: prompt and answer.
        start: where the answer begins in `tokens`.
        group: FORGET, RETAIN or REFUSAL.
        reference: sum of -log p of the answer's tokens under the frozen start model, for objectives that need it.
        weight: how much the example counts, for objectives that weigh theirs.
        pair: rows of a batch with the same number, not 0, are two of a pair: an objective sees them together.
    """

    tokens: list[int]
    start: int
    group: int
    reference: float = 0.0
    weight: float = 1.0
    pair: int = 0


class Batch(NamedTuple):
    """Packed rows. M micro-batches, R blocks of T positions, S data shards with R / S blocks, A labels and E examples.

    Attributes:
        prefix_P: the tokens that all examples begin with; they lie at the front of each shard's first block.
        tokens_MRT: int32.
        positions_MRT: int32, each token's position in its own example.
        segments_MRT: int32; 0 padding, 1 the prefix, 2.. one number an example of a shard.
        index_MSA: int32, where each label is predicted: an index into a shard's R / S * T positions. The label's own
            token is one further.
        labels_MSA: int32, token ids.
        group_MSA: int32, NO_LABEL or one of GROUPS.
        example_MSA: int32, the number of each label's example within its shard: 0..E-1, 0 where there is no label.
        group_MSE: int32, each example's group; NO_LABEL where there is no example.
        reference_MSE: float32, each example's `Row.reference`.
        weight_MSE: float32, each example's `Row.weight`; 0 where there is no example.
        pair_MSE: int32, the number within its shard of the example that each one is paired with; its own without one.
        row_MSE: int32, which of the packed rows each example is; NO_ROW where there is no example.
        label_counts_G: float32, labels of each of GROUPS in the whole global batch; 1 where there are none.
        example_counts_G: float32, the same of examples.
        used: int32, micro-batches that hold anything.
        rate: float32, the share of the schedule's learning rate that the batch is learnt at.
    """

    prefix_P: np.ndarray
    tokens_MRT: np.ndarray
    positions_MRT: np.ndarray
    segments_MRT: np.ndarray
    index_MSA: np.ndarray
    labels_MSA: np.ndarray
    group_MSA: np.ndarray
    example_MSA: np.ndarray
    group_MSE: np.ndarray
    reference_MSE: np.ndarray
    weight_MSE: np.ndarray
    pair_MSE: np.ndarray
    row_MSE: np.ndarray
    label_counts_G: np.ndarray
    example_counts_G: np.ndarray
    used: np.ndarray
    rate: np.ndarray


class Packing(NamedTuple):
    """The shape that batches are packed into.

    Attributes:
        prefix: leading tokens that all examples share.
        length: positions a block.
        rows: blocks a shard of a micro-batch.
        labels: labels a shard of a micro-batch.
        examples: examples a shard of a micro-batch.
        micro_batches: how many of them a typical batch needs.
    """

    prefix: int
    length: int
    rows: int
    labels: int
    examples: int
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
    for position in range(shortest):
        if any(r.tokens[position] != first[position] for r in rows):
            return position
    return max(shortest, 0)


def place(lengths: list[int], block: int, start: int) -> tuple[list[int], int]:
    """Where each example begins in the stream, and where the last one ends.

    From `start` on, the longest example that ends within two blocks comes first.
    """
    end, begins = start, [0] * len(lengths)
    left = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while left:
        fits = next((n for n, i in enumerate(left) if end % block + lengths[i] <= 2 * block), None)
        if fits is None:
            end += -end % block
            continue
        begins[left[fits]] = end
        end += lengths[left.pop(fits)]
    return begins, end


def bundles(rows: list[Row]) -> list[list[int]]:
    """Indices of rows that stay together: both of a pair, or one alone."""
    together: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault(row.pair or -1 - index, []).append(index)
    return list(together.values())


def deal(rows: list[Row], parts: int) -> list[list[int]]:
    """Indices of rows for each of `parts` parts: the longest row first, to the part with the fewest tokens. Pairs stay
    together.
    """
    dealt: list[list[int]] = [[] for _ in range(parts)]
    fewest = [(0, part) for part in range(parts)]
    sizes = [(sum(len(rows[i].tokens) for i in bundle), bundle) for bundle in bundles(rows)]
    for size, bundle in sorted(sizes, key=lambda entry: -entry[0]):
        tokens, part = fewest[0]
        dealt[part] += bundle
        heapq.heapreplace(fewest, (tokens + size, part))
    return dealt


def need(rows: list[Row], prefix: int, length: int) -> tuple[int, int]:
    """How many blocks and labels one shard's examples take."""
    _, end = place([len(r.tokens) - prefix for r in rows], length, prefix)
    return max(1, -(-end // length)), sum(len(r.tokens) - r.start for r in rows)


def plan_packing(
    batches: list[list[Row]], longest: int, prefix: int, shards: int, micro_batches: int, longest_pair: int = 0
) -> Packing:
    """The packing for batches like these typical ones.

    Blocks are as short as the longest example allows. There are as many blocks and labels as nine of ten of the batches
    need in `micro_batches`. Examples take hardly any room: they are never the reason for one more micro-batch.

    Args:
        batches: rows of typical batches.
        longest: tokens of the longest example, the prefix included.
        prefix: tokens that all examples share.
        shards: data shards.
        micro_batches: how many a typical batch is to need.
        longest_pair: tokens of the longest pair of examples; 0 without pairs.
    """
    length = round_up(max(prefix, -(-(longest - prefix) // 2)), LENGTH_MULTIPLE)
    needs = [
        np.max([need([b[i] for i in part], prefix, length) for part in deal(b, micro_batches * shards)], axis=0)
        for b in batches
    ]
    rows, labels = (int(np.quantile(column, 0.9, method="higher")) for column in np.array(needs).T)
    # Between the two of a pair, less than a block may stay empty.
    rows = max(rows, -(-longest // length), -(-(prefix + longest_pair) // length) + 1 if longest_pair else 0)
    most_examples = max(len(b) for b in batches)
    examples = min(most_examples, 2 * -(-most_examples // shards))
    return Packing(
        prefix, length, rows, round_up(max(labels, longest, longest_pair), LABEL_MULTIPLE), examples, micro_batches
    )


def pack(rows: list[Row], packing: Packing, shards: int = 1, rate: float = 1.0) -> Batch:
    """Pack examples into as few micro-batches as hold them.

    A batch that fits into one micro-batch, where the packing names one, is just that one: its update needs no loop.
    Otherwise there is room for twice as many micro-batches as the packing names, so that all batches have one shape.
    The loss over a packed batch equals the loss over the same examples one a row.

    Raises:
        ValueError: an example, or a pair of them, is longer than what fits.
    """
    longest = max(len(r.tokens) for r in rows)
    if longest > packing.longest:
        raise ValueError(f"an example has {longest} tokens; the packing has room for {packing.longest}")
    used = max(1, sum(len(r.tokens) - packing.prefix for r in rows) // (packing.rows * packing.length * shards))
    while None in (packed := [_pack_shard(rows, part, packing) for part in deal(rows, used * shards)]):
        used += 1
        if used > len(rows):
            raise ValueError(f"a pair of examples is longer than what the packing has room for: {packing}")
    slots = (1 if used == packing.micro_batches == 1 else max(used, 2 * packing.micro_batches)) * shards
    packed += [_pack_shard(rows, [], packing)] * (slots - len(packed))
    prefix_P = np.array(rows[0].tokens[: packing.prefix], np.int32)
    fields = [np.stack(x).reshape(slots // shards, -1, x[0].shape[-1]) for x in zip(*packed)]
    labels = [sum(len(r.tokens) - r.start for r in rows if r.group == g) for g in GROUPS]
    examples = [sum(r.group == g for r in rows) for g in GROUPS]
    counts = (np.maximum(1, count).astype(np.float32) for count in (labels, examples))
    return Batch(prefix_P, *fields, *counts, np.int32(used), np.float32(rate))


def partners(rows: list[Row]) -> list[int]:
    """The index of the row that each is paired with; its own without one."""
    partner = list(range(len(rows)))
    for bundle in bundles(rows):
        for index, other in zip(bundle, reversed(bundle)):
            partner[index] = other
    return partner


def _pack_shard(rows: list[Row], indices: list[int], packing: Packing) -> tuple[np.ndarray, ...] | None:
    """The arrays of one shard that holds the rows of these indices; None where there is no room for them.

    Returns:
        Batch's fields in their order: tokens, positions, segments [R, T]; index, labels, group, example [1, A];
        group, reference, weight, pair, row [1, E].
    """
    prefix, size = packing.prefix, packing.rows * packing.length
    own = [rows[i] for i in indices]
    begins, end = place([len(r.tokens) - prefix for r in own], packing.length, prefix)
    counts = [len(r.tokens) - r.start for r in own]
    if end > size or sum(counts) > packing.labels or len(own) > packing.examples:
        return None
    tokens, positions, segments = (np.zeros(size, np.int32) for _ in range(3))
    index, labels, group, example = (np.zeros((1, packing.labels), np.int32) for _ in range(4))
    if own:
        tokens[:prefix], positions[:prefix], segments[:prefix] = own[0].tokens[:prefix], np.arange(prefix), 1
    filled = 0
    for number, (row, begin, n) in enumerate(zip(own, begins, counts)):
        here = slice(begin, begin + len(row.tokens) - prefix)
        tokens[here], segments[here] = row.tokens[prefix:], 2 + number
        positions[here] = np.arange(prefix, len(row.tokens))
        answer = slice(filled, filled + n)
        index[0, answer] = here.stop - n - 1 + np.arange(n)
        labels[0, answer], group[0, answer], example[0, answer] = row.tokens[row.start :], row.group, number
        filled += n
    spare = packing.examples - len(own)
    of_examples = (
        np.array([[*(r.group for r in own), *[NO_LABEL] * spare]], np.int32),
        np.array([[*(r.reference for r in own), *[0.0] * spare]], np.float32),
        np.array([[*(r.weight for r in own), *[0.0] * spare]], np.float32),
        np.array([[*partners(own), *[0] * spare]], np.int32),
        np.array([[*indices, *[NO_ROW] * spare]], np.int32),
    )
    stream = (x.reshape(packing.rows, packing.length) for x in (tokens, positions, segments))
    return *stream, index, labels, group, example, *of_examples
