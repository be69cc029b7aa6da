"""Sizes to compile for: how questions are cut into batches, and the batch sizes that a batch shrinks through while its answers end."""

from typing import NamedTuple

READ_AT_ONCE = 1024  # prompt positions read at once on each shard
FIRST_SLOTS = 32  # answer slots of a large batch at first
LARGE = 128  # rows at which a size and its slots more bring in their compilation
MIN_ROWS = 16  # a smaller batch is not compacted further: the step's time no longer shrinks with it


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
    """Batch sizes to compile for: `most`, two thirds of it where that is many, then a third again and again, each a multiple of `multiple` (shards).

    Thirds, not halves: a size more costs a second of compilation, which the rows it saves do not bring in.
    """
    sizes = [round_up(most, multiple)]
    large = sizes[0] >= LARGE * multiple
    while sizes[-1] // 3 >= max(MIN_ROWS, multiple):
        sizes.append(round_up(-(-sizes[-1] // 3), multiple))
    if large:
        sizes.insert(1, round_up(-(-2 * sizes[0] // 3), multiple))
    first = FIRST_SLOTS if large else 2 * FIRST_SLOTS
    return [Rung(rows, min(longest, (first, 2 * FIRST_SLOTS)[n] if n <= large else longest)) for n, rows in enumerate(sizes)]


def fit(count: int, rungs: list[Rung]) -> Rung:
    """The smallest one that holds `count` rows."""
    return min(r for r in rungs if r.rows >= count)


def shrink(rows: int, alive: int, rungs: list[Rung]) -> list[Rung]:
    """From a batch of `rows` to the smallest rung that holds `alive`, by all rungs between: each move from size to size is a program to compile."""
    return [r for r in rungs if fit(alive, rungs).rows <= r.rows < rows]
