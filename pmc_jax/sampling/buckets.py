"""Sizes to compile for: how questions are cut into batches, and the batch sizes (buckets) that a batch shrinks through
while its answers end. They are few, since each one is a program to compile.
"""

import math
from typing import NamedTuple

from pmc_jax.data.packing import round_up
from pmc_jax.distributed.device_kind import DeviceKind
from pmc_jax.sampling.params import SamplingParams

SHRINK = 0.27  # rows of a bucket over those of the one before it
# The first such ratio where answers have drafts: about half of the rows end with their draft, or are pruned by then.
SHRINK_DRAFTED = 0.54
MIN_ROWS = 8  # a smaller batch is not compacted further: the step's time no longer shrinks with it
MAX_SPLIT = 3  # a batch whose slots are all taken goes on in at most this many smaller ones


LANE_ROWS = 8  # a lane with fewer would have several pages a row
MAX_TOGETHER = 4
SPARE_PAGES = 3  # of a lane, beside those that its rows draw from: for stragglers, and for the host's delay
SMALL = 4  # the smaller batch has so many times fewer rows
LEAST_SMALL = 8


class BatchPlan(NamedTuple):
    """How a call's questions are cut into equal batches.

    Attributes:
        count: number of batches.
        questions: real questions of a batch, at most.
        size: questions of a batch after filling up with copies.
        parts: parts in which each data shard reads the batch's prompts.
        rows: answers of a batch, size * samples.
    """

    count: int
    questions: int
    size: int
    parts: int
    rows: int


def plan_batches(
    questions: int, width: int, num_samples: int, max_rows: int, shards: int, kind: DeviceKind
) -> BatchPlan:
    """The fewest batches that decode at most `max_rows` rows a shard, about equally full.

    Args:
        questions: in all.
        width: positions of a padded prompt and its draft.
        num_samples: answers to each question.
        max_rows: answers decoded at once on each data shard.
        shards: data shards.
        kind: what the devices want.
    """
    count = -(-questions // max(1, max_rows * shards // num_samples))
    per_batch = -(-questions // count)
    min_parts = -(-per_batch * width // (shards * kind.prefill_positions))
    parts = min(range(min_parts, 2 * min_parts + 1), key=lambda parts: round_up(per_batch, shards * parts))
    size = round_up(per_batch, shards * parts)
    return BatchPlan(count, per_batch, size, parts, size * num_samples)


class Bucket(NamedTuple):
    """One batch size.

    Attributes:
        rows: answers decoded together.
        slots: decode-cache slots, tokens of an answer after its draft.
        sharing: rows that share one copy of their question's prompt cache.
    """

    rows: int
    slots: int
    sharing: int = 1


def batch_buckets(
    rows: int, shards: int, max_new_tokens: int, kind: DeviceKind, num_samples: int = 1, drafted: bool = False
) -> list[Bucket]:
    """The buckets of a batch, from its first size to the smallest one.

    Rows shrink to about a quarter from one to the next, and slots double. Halves all along would be more programs, and
    each takes a second to compile, which it does not bring in. Where half of the rows are left, a prompt cache for each
    would take as long to read as one for each question does with all rows: then a few rows share one.

    Args:
        rows: of the first bucket, before rounding.
        shards: data shards; rows are a multiple of them.
        max_new_tokens: slots of the last bucket.
        kind: what the devices want.
        num_samples: rows of a question.
        drafted: answers go on from their drafts. Then a half comes before the first quarter, and slots start at half.
    """
    sizes = [(round_up(rows, shards), num_samples)]
    sharing = -(-num_samples // 4)
    half = round_up(math.ceil(SHRINK_DRAFTED * rows), shards * sharing)
    if drafted and MIN_ROWS <= half < sizes[0][0]:
        sizes.append((half, sharing))
    while (fewer := round_up(math.ceil(SHRINK * sizes[-1][0]), shards)) >= MIN_ROWS and fewer < sizes[-1][0]:
        sizes.append((fewer, 1))
    first_slots = kind.first_slots // 2 if drafted else kind.first_slots
    slots = [min(max_new_tokens, first_slots << i) for i in range(len(sizes) - 1)] + [max_new_tokens]
    return [Bucket(rows, bucket_slots, sharing) for (rows, sharing), bucket_slots in zip(sizes, slots)]


def smaller_batches(alive: int, full: bool, bucket: Bucket) -> int:
    """How many batches of the next smaller bucket go on with the rows that are left; 0 = the batch stays as it is.

    Args:
        alive: rows that are left.
        full: all slots are taken. Then a few smaller batches, which have more slots, are better than the same batch
            with more slots, which is one more program.
        bucket: the next smaller one.
    """
    count = -(-alive // bucket.rows)
    return count if count <= (MAX_SPLIT if full else 1) else 0


class LanePlan(NamedTuple):
    """Sizes of the lanes; static.

    Attributes:
        shards: data shards.
        lanes: G, of all shards.
        rows: R, of a lane.
        pages: P, of a lane.
        ring: C, slots of a row.
        reads: questions that are read at once on each shard.
        small: rows a shard of the smaller batch; 0 = there is none.
    """

    shards: int
    lanes: int
    rows: int
    pages: int
    ring: int
    reads: int
    small: int


def plan_lanes(
    questions: int, width: int, sampling: SamplingParams, max_rows: int, shards: int, kind: DeviceKind
) -> LanePlan:
    """The lanes of a call.

    Args:
        questions: in all.
        width: slots of a prompt and its draft.
        sampling: what is sampled.
        max_rows: rows of each shard, at most.
        shards: data shards.
        kind: what the devices want.
    """
    n, each = sampling.num_samples, -(-questions // shards)
    together = min(-(-LANE_ROWS // n), MAX_TOGETHER, each)
    rows = min(n * together, max_rows)
    lanes = max(1, min(max_rows // rows, -(-each // together)))
    pages = min(together + SPARE_PAGES, -(-each // lanes))
    reads = max(1, min(each, -(-lanes * together // 2), kind.prefill_positions // width))
    small = -(-lanes * rows // SMALL)
    return LanePlan(
        shards, lanes * shards, rows, pages, sampling.max_new_tokens, reads, small if small >= LEAST_SMALL else 0
    )
