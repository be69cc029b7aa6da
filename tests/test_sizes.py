"""Batch sizes on drawn cases: what must hold whatever the sizes are."""

import itertools

import numpy as np
import pytest

from pmc_jax.sampling.buckets import (
    ACCELERATOR,
    CPU,
    FEW_BATCHES,
    MIN_ROWS,
    Bucket,
    batch_buckets,
    batches_below,
    cut_batches,
    round_up,
)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return [(int(rng.integers(1, 3000)), int(rng.choice([1, 2, 8, 64])), int(rng.integers(1, 600))) for _ in range(300)]


def test_a_ladder_holds_the_batch_shrinks_and_ends_with_room_for_the_longest(drawn):
    for most, multiple, longest in drawn:
        buckets_ = batch_buckets(most, multiple, longest, CPU)
        rows = [r.rows for r in buckets_]
        assert rows[0] == round_up(most, multiple) and all(n % multiple == 0 for n in rows)
        assert all(MIN_ROWS <= b < a for a, b in itertools.pairwise(rows))
        assert buckets_[-1].slots == longest and all(r.slots <= longest for r in buckets_)


def test_slots_double_down_the_ladder():
    assert batch_buckets(512, 1, 256, ACCELERATOR) == [
        Bucket(512, 64),
        Bucket(139, 128),
        Bucket(38, 256),
        Bucket(11, 256),
    ]
    assert batch_buckets(200, 1, 128, CPU) == [Bucket(200, 32), Bucket(54, 64), Bucket(15, 128)]
    assert batch_buckets(5, 1, 128, CPU) == [Bucket(5, 128)]


def test_drafted_rows_are_halved_first_and_share_prefixes(drawn):
    assert batch_buckets(200, 1, 128, CPU, 5, drafted=True) == [
        Bucket(200, 16, 5),
        Bucket(108, 32, 2),
        Bucket(30, 64),
        Bucket(9, 128),
    ]
    assert batch_buckets(400, 1, 128, CPU, 10, drafted=True)[1] == Bucket(216, 32, 3)
    for most, multiple, longest in drawn:
        for samples in (1, 3, 20):
            buckets_ = batch_buckets(
                round_up(most, multiple) * samples, multiple, longest, ACCELERATOR, samples, drafted=True
            )
            assert all(b < a for a, b in itertools.pairwise([r.rows for r in buckets_]))
            assert all(r.rows % (multiple * r.sharing) == 0 for r in buckets_) and buckets_[-1].slots == longest


def test_rows_go_on_in_one_smaller_batch_or_when_slots_are_taken_in_few(drawn):
    for alive, rows, _ in drawn:
        below, needed = Bucket(rows, 64), -(-alive // rows)
        assert batches_below(alive, False, below) == (1 if needed == 1 else 0)
        assert batches_below(alive, True, below) == (needed if needed <= FEW_BATCHES else 0)


def test_batches_hold_all_questions_within_the_rows_of_a_shard(drawn):
    for questions, shards, width in drawn:
        for samples, max_rows in ((1, 256), (5, 100), (20, 512)):
            b = cut_batches(questions, width, samples, max_rows, shards, CPU)
            assert b.count * b.questions >= questions > (b.count - 1) * b.questions
            assert b.questions <= b.size and b.size % (shards * b.parts) == 0 and b.rows == b.size * samples
            assert b.questions * samples <= max(samples, max_rows * shards)
