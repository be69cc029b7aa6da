"""Sizes to compile for: how questions are cut into batches, and the batch sizes that a batch shrinks through while its answers end."""

import math
from typing import NamedTuple

READ_AT_ONCE = 1024  # prompt positions read at once on each shard
FIRST_SLOTS = 64  # answer slots at first
SHRINK = 0.27  # a batch size over the one before it
MIN_ROWS = 8  # a smaller batch is not compacted further: the step's time no longer shrinks with it


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


class Batches(NamedTuple):
    """How questions are cut: `count` batches of at most `questions`, filled up to `size`, read in `parts` parts, with `rows` answers each."""

    count: int
    questions: int
    size: int
    parts: int
    rows: int


def cut_batches(questions: int, width: int, num_samples: int, max_rows: int, shards: int) -> Batches:
    """The fewest batches that decode at most `max_rows` rows a shard, about equally full. width: of the padded prompts."""
    count = -(-questions // max(1, max_rows * shards // num_samples))
    per_batch = -(-questions // count)
    parts = -(-per_batch * width // (shards * READ_AT_ONCE))
    size = round_up(per_batch, shards * parts)
    return Batches(count, per_batch, size, parts, size * num_samples)


class Rung(NamedTuple):
    """A batch size and its answer slots."""

    rows: int
    slots: int


def ladder(most: int, multiple: int, longest: int) -> list[Rung]:
    """Batch sizes to compile for: `most`, about a quarter of it, .., each a multiple of `multiple` (shards). The last two have room for `longest`.

    Neither halves nor little room in the small ones: a program more costs a second of compilation, which that does not bring in.
    """
    sizes = [round_up(most, multiple)]
    while (fewer := round_up(math.ceil(SHRINK * sizes[-1]), multiple)) >= MIN_ROWS and fewer < sizes[-1]:
        sizes.append(fewer)
    return [Rung(rows, longest if rows in sizes[-2:] else min(longest, FIRST_SLOTS)) for rows in sizes]


def fit(count: int, rungs: list[Rung]) -> Rung:
    """The smallest one that holds `count` rows."""
    return min(r for r in rungs if r.rows >= count)


def shrink(rows: int, alive: int, rungs: list[Rung]) -> list[Rung]:
    """From a batch of `rows` to the smallest rung that holds `alive`, by all rungs between: each move from size to size is a program to compile."""
    least = fit(alive, rungs).rows
    return [r for r in rungs if least <= r.rows < rows]
