"""Batch sizes on drawn cases: what must hold whatever the sizes are."""

import itertools

import numpy as np
import pytest

from pmc_jax.data.packing import round_up
from pmc_jax.distributed.device_kind import ACCELERATOR, CPU
from pmc_jax.sampling.buckets import MAX_SPLIT, MIN_ROWS, Bucket, batch_buckets, plan_batches, smaller_batches


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return [(int(rng.integers(1, 3000)), int(rng.choice([1, 2, 8, 64])), int(rng.integers(1, 600))) for _ in range(300)]


def test_the_first_bucket_holds_the_batch_and_the_last_one_the_longest_answer(drawn):
    for rows, shards, longest in drawn:
        buckets = batch_buckets(rows, shards, longest, CPU)
        sizes = [b.rows for b in buckets]
        assert sizes[0] == round_up(rows, shards) and all(n % shards == 0 for n in sizes)
        assert all(MIN_ROWS <= b < a for a, b in itertools.pairwise(sizes))
        assert buckets[-1].slots == longest and all(b.slots <= longest for b in buckets)


def test_slots_double_from_bucket_to_bucket():
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
    for questions, shards, longest in drawn:
        for samples in (1, 3, 20):
            rows = round_up(questions, shards) * samples
            buckets = batch_buckets(rows, shards, longest, ACCELERATOR, samples, drafted=True)
            assert all(b < a for a, b in itertools.pairwise([b.rows for b in buckets]))
            assert all(b.rows % (shards * b.sharing) == 0 for b in buckets) and buckets[-1].slots == longest


def test_rows_go_on_in_one_smaller_batch_or_when_slots_are_taken_in_few(drawn):
    for alive, rows, _ in drawn:
        bucket, needed = Bucket(rows, 64), -(-alive // rows)
        assert smaller_batches(alive, False, bucket) == (1 if needed == 1 else 0)
        assert smaller_batches(alive, True, bucket) == (needed if needed <= MAX_SPLIT else 0)


def test_batches_hold_all_questions_within_the_rows_of_a_shard(drawn):
    for questions, shards, width in drawn:
        for samples, max_rows in ((1, 256), (5, 100), (20, 512)):
            plan = plan_batches(questions, width, samples, max_rows, shards, CPU)
            assert plan.count * plan.questions >= questions > (plan.count - 1) * plan.questions
            assert (
                plan.questions <= plan.size
                and plan.size % (shards * plan.parts) == 0
                and plan.rows == plan.size * samples
            )
            assert plan.questions * samples <= max(samples, max_rows * shards)
