"""Sizes to compile for: how questions are cut into batches, and the batch sizes that a batch shrinks through while its
answers end.
"""

import math
from typing import NamedTuple

SHRINK = 0.27  # a batch size over the one before it
DRAFTED = (
    0.54  # the first of them, where answers have drafts: about half of the rows end with theirs, or have lost by then
)
MIN_ROWS = 8  # a smaller batch is not compacted further: the step's time no longer shrinks with it
FEW_BATCHES = 3  # into at most so many smaller ones a batch goes on when its slots are all taken


class Limits(NamedTuple):
    """What a kind of device wants.

    read_at_once: prompt positions read at once on each shard. first_slots: answer slots of the largest batch at first.
    ahead: draw on while the host scores what was drawn.
    """

    read_at_once: int
    first_slots: int
    ahead: bool


# A processor is as fast at few positions, and late rounds have few questions left to read. Its decode steps of many
# rows are bound by the bytes of all slots, those not yet taken included. Host and device are the same there, and a
# chunk drawn for rows that have lost is a chunk's time lost.
CPU = Limits(read_at_once=256, first_slots=32, ahead=False)
ACCELERATOR = Limits(read_at_once=1024, first_slots=64, ahead=True)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


class Batches(NamedTuple):
    """How questions are cut: `count` batches of at most `questions`, filled up to `size`, read in `parts` parts, with
    `rows` answers each.
    """

    count: int
    questions: int
    size: int
    parts: int
    rows: int


def cut_batches(questions: int, width: int, num_samples: int, max_rows: int, shards: int, limits: Limits) -> Batches:
    """The fewest batches that decode at most `max_rows` rows a shard, about equally full. width: of the padded
    prompts.
    """
    count = -(-questions // max(1, max_rows * shards // num_samples))
    per_batch = -(-questions // count)
    least = -(-per_batch * width // (shards * limits.read_at_once))
    parts = min(range(least, 2 * least + 1), key=lambda parts: round_up(per_batch, shards * parts))
    size = round_up(per_batch, shards * parts)
    return Batches(count, per_batch, size, parts, size * num_samples)


class Bucket(NamedTuple):
    """A batch size, its answer slots, and how many rows share a copy of their question's prefix."""

    rows: int
    slots: int
    sharing: int = 1


def batch_buckets(
    most: int, multiple: int, longest: int, limits: Limits, num_samples: int = 1, drafted: bool = False
) -> list[Bucket]:
    """Batch sizes to compile for: `most`, about a quarter of it, .., each a multiple of `multiple` (shards). Slots
    double from one to the next, and the last one has room for `longest`. drafted: half before a quarter of it, and half
    the slots, as answers go on from their drafts.

    Not halves all along: a program more costs a second of compilation, which that does not bring in. Where half of the
    rows are left, each reading a prefix of its own would take as long as all of them reading their question's.
    """
    sizes = [(round_up(most, multiple), num_samples)]
    sharing = -(-num_samples // 4)
    if drafted and MIN_ROWS <= (half := round_up(math.ceil(DRAFTED * most), multiple * sharing)) < sizes[0][0]:
        sizes.append((half, sharing))
    while (fewer := round_up(math.ceil(SHRINK * sizes[-1][0]), multiple)) >= MIN_ROWS and fewer < sizes[-1][0]:
        sizes.append((fewer, 1))
    first = limits.first_slots // 2 if drafted else limits.first_slots
    slots = [min(longest, first << i) for i in range(len(sizes) - 1)] + [longest]
    return [Bucket(rows, of_rung, sharing) for (rows, sharing), of_rung in zip(sizes, slots)]


def batches_below(alive: int, full: bool, below: Bucket) -> int:
    """How many batches of the next smaller size go on with the `alive` rows; 0 = the batch stays as it is.

    full: all slots are taken. Then few smaller batches, which have more slots, are better than the batch with more
    slots, which is a program more.
    """
    batches = -(-alive // below.rows)
    return batches if batches <= (FEW_BATCHES if full else 1) else 0
