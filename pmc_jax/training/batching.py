"""Rows -> batches of about equally many tokens, and the packed shape that suits such batches."""

from typing import NamedTuple

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from pmc_jax.data.packing import Packing, Row, common_prefix, pack, plan_packing
from pmc_jax.distributed.device_kind import device_kind

DRAWN_BATCHES = 40  # typical batches that the packing is planned on


class BatchSettings(NamedTuple):
    """How rows are dealt to updates.

    Attributes:
        size: examples of an update.
        accumulate: micro-batches of an update; 0 = one, and on a CPU as many as keep to its cache.
        seed: of the batches that the packing is planned on.
    """

    size: int
    accumulate: int
    seed: int


class ExpectedRows(NamedTuple):
    """Rows like those to come. An example holds one row of each group that is not empty.

    Attributes:
        groups: training rows, a list a group.
        longest: the most tokens that any row to come can have.
        together: examples that are dealt to batches at a time.
        paired: whether the rows of the first two groups are pairs.
    """

    groups: tuple[list[Row], ...]
    longest: int
    together: int
    paired: bool = False


def even_batches(examples: list[tuple[Row, ...]], size: int) -> list[list[Row]]:
    """Deal examples to as few batches as hold them all, each with about equally many tokens.

    Little padding then makes the batches one shape. An example's rows (an answer to forget and its retain row) stay
    together.

    Args:
        examples: the rows of each example.
        size: the most examples of a batch.

    Returns:
        The rows of each batch.
    """
    count = -(-len(examples) // size)
    batches: list[list[tuple[Row, ...]]] = [[] for _ in range(count)]
    tokens = [0] * count
    for example in sorted(examples, key=lambda rows: -sum(len(r.tokens) for r in rows)):
        shortest = min((b for b in range(count) if len(batches[b]) < size), key=lambda b: tokens[b])
        batches[shortest].append(example)
        tokens[shortest] += sum(len(r.tokens) for r in example)
    return [[row for example in batch for row in example] for batch in batches]


def paired(examples: list[tuple[Row, ...]]) -> list[tuple[Row, ...]]:
    """The same examples; the first two rows of each are a pair."""
    return [
        (*(row._replace(pair=number) for row in rows[:2]), *rows[2:]) for number, rows in enumerate(examples, start=1)
    ]


def choose_packing(expected: ExpectedRows, settings: BatchSettings, mesh: Mesh | AbstractMesh) -> Packing:
    """Choose the packing for batches of such rows, planned on drawn batches. The same rows give the same packing.

    Args:
        expected: rows like those to come.
        settings: how rows are dealt to updates.
        mesh: the devices that share a batch; its shape and kind decide.

    Returns:
        The shape that all batches are packed into.
    """
    groups = [rows for rows in expected.groups if rows]
    every_row = [row for rows in groups for row in rows]
    longest = max(expected.longest, *(len(r.tokens) for r in every_row))
    rng = np.random.default_rng(settings.seed)
    batches: list[list[Row]] = []
    while len(batches) < DRAWN_BATCHES:
        columns = [[rows[i] for i in rng.integers(len(rows), size=expected.together)] for rows in groups]
        examples = list(zip(*columns))
        batches += even_batches(paired(examples) if expected.paired else examples, settings.size)
    prefix, shards = common_prefix(every_row), mesh.shape["data"]
    counts = [settings.accumulate]
    if not settings.accumulate:
        positions = np.mean([sum(len(r.tokens) - prefix for r in rows) for rows in batches]) / shards
        counts = micro_batch_counts(positions, device_kind(mesh).micro_batch_positions)
    longest_pair = sum(max(len(r.tokens) for r in rows) for rows in groups[:2]) if expected.paired else 0
    plans = [plan_packing(batches, longest, prefix, shards, count, longest_pair) for count in counts]
    if len(plans) == 1:
        return plans[0]
    return min(plans, key=lambda plan: sum(positions_used(rows, plan, shards) for rows in batches))


def micro_batch_counts(positions: float, size: int) -> list[int]:
    """Into how many micro-batches a batch may be cut: as many as hold `size` positions each, or one or two fewer, but
    not less than two thirds. Each is filled up to one shape, so that one more may be a fifth more positions.

    Args:
        positions: of a typical batch on each data shard.
        size: what a micro-batch is to hold; 0 = the whole batch.
    """
    finest = max(1, round(positions / size)) if size else 1
    return list(range(finest, max(finest - 2, -(-2 * finest // 3)) - 1, -1))


def positions_used(rows: list[Row], packing: Packing, shards: int) -> int:
    """How many positions of each data shard a batch takes with a packing, those that are filled up included."""
    return int(pack(rows, packing, shards).used) * packing.rows * packing.length
