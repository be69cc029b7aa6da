"""Into how many micro-batches a batch is cut on a CPU."""

import numpy as np
import pytest

from pmc_jax.data.packing import GROUPS, Row
from pmc_jax.distributed import meshes
from pmc_jax.training.batching import (
    BatchSettings,
    ExpectedRows,
    choose_packing,
    even_batches,
    micro_batch_counts,
    positions_used,
)


@pytest.mark.parametrize(
    ("positions", "size", "counts"),
    [(5120, 256, [20, 19, 18]), (1410, 256, [6, 5, 4]), (900, 256, [4, 3]), (9, 256, [1])],
)
def test_one_or_two_fewer_micro_batches_may_be_chosen(positions, size, counts):
    assert micro_batch_counts(positions, size) == counts and micro_batch_counts(positions, 0) == [1]


def test_the_micro_batches_that_leave_least_empty_are_chosen(tiny_checkpoint):
    mesh, used, chosen = meshes.mesh_of(tiny_checkpoint.params), [], set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        groups = [[Row([7] * int(n), int(n // 2), group) for n in rng.integers(30, 130, 60)] for group in GROUPS]
        expected, finest = ExpectedRows(tuple(groups), 130, 60), round(8 * 3 * 80 / 256)
        plans = [choose_packing(expected, BatchSettings(8, count, 0), mesh) for count in (0, finest)]
        batches = even_batches(list(zip(*groups)), 8)
        used.append([sum(positions_used(batch, plan, 1) for batch in batches) for plan in plans])
        chosen.add(plans[0].micro_batches)
    assert len(chosen) > 1, "not always the finest"
    own, finest = np.sum(used, axis=0)
    assert own < finest, used
