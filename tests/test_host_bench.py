"""benchmarks/host.py and benchmarks/refill.py on small sizes: answers of drawn lengths, looks until the last row is
retired, and a schedule that can be counted by hand, or is counted by the engine.
"""

import sys

import numpy as np
import pytest
from tiny import ROOT

from pmc_jax.distributed import device_kind
from pmc_jax.sampling import refill as engine
from pmc_jax.sampling.generate import round_sampler
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prompts import left_pad

sys.path.insert(0, str(ROOT / "benchmarks"))
import host
import refill


@pytest.mark.parametrize("processes", [1, 2])
def test_the_host_looks_until_all_rows_are_retired(processes):
    drawn = host.draw_batch(rows=42, samples=4, longest=48)
    assert len(drawn.references) == 10 and drawn.tokens_BL.shape == (42, 48)
    ends = drawn.tokens_BL[np.arange(42), drawn.lengths_B - 1] == drawn.text.end_tokens[0]
    assert ends[:40].all() and not ends[40:].any(), "two rows are left over, and are nobody's"
    assert 10 < drawn.lengths_B[:40].mean() < 48 and len(set(drawn.lengths_B)) > 5
    taken = host.looks(drawn, 4, "rouge_l_recall", max_rows=8, shards=2, processes=processes)
    assert len(taken) > 3 and min(taken) >= 0


def test_devices_are_slower_with_more_rows():
    few, many = (host.chunk_seconds("Llama-3.2-3B", 8, rows) for rows in (320, 2048))
    assert 0 < few < many


def call_of(questions, plan, **changes):
    """A call whose lanes and habits are these."""
    sampling = SamplingParams(num_samples=2, max_new_tokens=10)
    call = refill.forced_call(questions, sampling, 2, 1, (refill.END,))
    return call._replace(plan=call.plan._replace(**plan), kind=call.kind._replace(**changes))


def test_row_steps_counted_by_hand():
    """One lane of two rows. The first token of each answer comes with its prompt, so that lengths 5, 3, 2, 1 are 4, 2,
    1 and 0 steps. A look after each step, nothing ahead:

        step     1  2  3  4
        row 0    a  a  a  a
        row 1    b  b  c  -     c is of the second question, which has been read into the second page
    """
    plan = dict(lanes=1, rows=2, pages=2, reads=1, small=0)
    lanes = refill.replay(call_of(2, plan, look_steps=1, decode_ahead=False), np.array([5, 3, 2, 1]))
    assert (lanes.wanted, lanes.row_steps) == (7, 8)
    # With one page the second question waits until the first one has ended: 4 steps, and one more.
    lanes = refill.replay(call_of(2, plan | dict(pages=1), look_steps=1, decode_ahead=False), np.array([5, 3, 2, 1]))
    assert (lanes.wanted, lanes.row_steps) == (7, 10)
    # With a chunk ahead it waits for one step more, in which there is nothing to do, and none is taken.
    lanes = refill.replay(call_of(2, plan | dict(pages=1), look_steps=4, decode_ahead=True), np.array([5, 3, 2, 1]))
    assert (lanes.wanted, lanes.row_steps) == (7, 10)


@pytest.mark.parametrize("max_rows", [12, 48])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_replay_counts_what_the_engine_takes(
    tiny_checkpoint, forget_questions, small, monkeypatch, max_rows, ahead
):
    kind = device_kind.CPU._replace(refill=True, decode_ahead=ahead, look_steps=4)
    monkeypatch.setattr(device_kind, "CPU", kind)
    changes = {"sample.max_rows": max_rows, "sample.num_samples": 6, "sample.max_new_tokens": 48}
    sampler = round_sampler(tiny_checkpoint, small(changes | {"sample.temperature": 1.3}))
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    taken, calls, look = [], [], engine.Ledger.look

    def watched(ledger, chunk, devices):
        look(ledger, chunk, devices)
        calls.append(ledger.call)
        taken.append(chunk.written.tokens_BT2.shape[0] * int(chunk.written.steps))

    monkeypatch.setattr(engine.Ledger, "look", watched)
    answers = sampler.tokens(plain)
    monkeypatch.setattr(engine.Ledger, "look", look)
    lengths_B = np.array([len(answer) for samples in answers for answer in samples])
    drawing = calls[0].drawing._replace(end_tokens=(refill.END,))
    lanes = refill.replay(calls[0]._replace(drawing=drawing), lengths_B)
    assert lanes.row_steps == sum(taken) and lanes.wanted == sum(lengths_B - 1)


def test_tofu_keeps_a_pod_busy():
    """The lengths of 400 questions x 20 samples, on the two data shards of v5e:2x4."""
    sampling = SamplingParams(num_samples=20, max_new_tokens=128)
    drawn = refill.ASSUMED.lengths(128, 8000)
    lanes = refill.replay(
        refill.forced_call(400, sampling, 256, 2, (refill.END,)), np.random.default_rng(0).permutation(drawn)
    )
    assert lanes.wanted / lanes.row_steps > 0.9
