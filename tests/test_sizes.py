"""Batch sizes on drawn cases: what must hold whatever the sizes are."""

import itertools

import numpy as np
import pytest

from pmc_jax.sizes import MIN_ROWS, cut_batches, fit, ladder, round_up, shrink


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return [(int(rng.integers(1, 3000)), int(rng.choice([1, 2, 8, 64])), int(rng.integers(1, 600))) for _ in range(300)]


def test_a_ladder_holds_the_batch_shrinks_and_ends_with_room_for_the_longest(drawn):
    for most, multiple, longest in drawn:
        rungs = ladder(most, multiple, longest)
        rows = [r.rows for r in rungs]
        assert rows[0] == round_up(most, multiple) and all(n % multiple == 0 for n in rows)
        assert all(MIN_ROWS <= b < a for a, b in itertools.pairwise(rows))
        assert rungs[-1].slots == longest and all(r.slots <= longest for r in rungs)


def test_a_batch_goes_down_to_the_smallest_size_that_holds_what_is_alive(drawn):
    for most, multiple, longest in drawn:
        rungs = ladder(most, multiple, longest)
        for alive in {1, most // 7 + 1, most // 2 + 1, most}:
            way = shrink(rungs[0].rows, alive, rungs)
            assert fit(alive, rungs).rows >= alive
            assert [r.rows for r in way] == [r.rows for r in rungs[1:] if r.rows >= fit(alive, rungs).rows], "no size is left out"
            assert not shrink(fit(alive, rungs).rows, alive, rungs), "and then it stays"


def test_batches_hold_all_questions_within_the_rows_of_a_shard(drawn):
    for questions, shards, width in drawn:
        for samples, max_rows in ((1, 256), (5, 100), (20, 512)):
            b = cut_batches(questions, width, samples, max_rows, shards)
            assert b.count * b.questions >= questions > (b.count - 1) * b.questions
            assert b.questions <= b.size and b.size % (shards * b.parts) == 0 and b.rows == b.size * samples
            assert b.questions * samples <= max(samples, max_rows * shards)
