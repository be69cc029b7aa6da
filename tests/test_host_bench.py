"""benchmarks/host.py on a small batch: answers of drawn lengths, and looks until the last row is retired."""

import sys

import numpy as np
from tiny import ROOT

from pmc_jax.sampling.decode import CHUNK

sys.path.insert(0, str(ROOT / "benchmarks"))
import host


def test_the_host_looks_until_all_rows_are_retired():
    drawn = host.draw_batch(rows=42, samples=4, longest=48)
    assert len(drawn.references) == 10 and drawn.tokens_BL.shape == (42, 48)
    ends = drawn.tokens_BL[np.arange(42), drawn.lengths_B - 1] == drawn.text.end_tokens[0]
    assert ends[:40].all() and not ends[40:].any(), "two rows are left over, and are nobody's"
    assert 10 < drawn.lengths_B[:40].mean() < 48 and len(set(drawn.lengths_B)) > 5
    taken = host.looks(drawn, samples=4, reward="rouge_l_recall")
    # Lost samples are pruned: fewer looks than the longest answer has chunks would be no fault.
    assert 2 <= len(taken) <= -(-drawn.lengths_B.max() // CHUNK) and min(taken) >= 0


def test_devices_are_slower_with_more_rows():
    few, many = (host.chunk_seconds("Llama-3.2-3B", 8, rows) for rows in (320, 2048))
    assert 0 < few < many
