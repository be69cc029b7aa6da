"""The pure functions: in a jit of one's own they give what the sampler gives."""

import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny import ROOT

from pmc_jax import functional
from pmc_jax.sampling.generate import round_sampler

LONGEST = 20  # no multiple of a chunk


def as_arrays(answers):
    """(tokens [Q, n, L], lengths [Q, n]) of the engine's lists."""
    lengths_Qn = np.array([[len(a) for a in samples] for samples in answers])
    return np.array([[a + [0] * (LONGEST - len(a)) for a in samples] for samples in answers]), lengths_Qn


@pytest.mark.parametrize("drafted", [False, True])
def test_one_program_samples_what_the_engine_samples(tiny_checkpoint, forget_questions, small, drafted):
    settings = {"sample.temperature": 1.3, "sample.num_samples": 3, "sample.max_new_tokens": LONGEST, "seed": 3}
    sampler = round_sampler(tiny_checkpoint, small(settings))
    questions = forget_questions[:4]
    prompts = functional.left_pad([sampler.text.prompt(q) for q in questions], questions)
    expected, lengths_Qn = as_arrays(sampler.tokens(prompts))
    if drafted:
        drafts = [samples[0].tolist()[:length] for samples, (length, *_) in zip(expected, lengths_Qn)]
        prompts = functional.with_drafts(prompts, drafts, sampler.text.end_tokens, LONGEST)
    uniform_BL2 = functional.row_uniforms(prompts.keys_Q, 3, 0, 3, LONGEST)[:, :LONGEST]
    static = dict(strategy=sampler.sampling.strategy, end_tokens=sampler.text.end_tokens)
    own = jax.jit(functools.partial(functional.sample_tokens, tiny_checkpoint.model, **static))
    tokens_QnL, own_lengths_Qn = own(tiny_checkpoint.params, prompts, uniform_BL2)
    assert np.array_equal(tokens_QnL, expected) and np.array_equal(own_lengths_Qn, lengths_Qn)
    assert lengths_Qn.min() < LONGEST, "an answer ends before the last token"


@pytest.mark.parametrize("devices", [1, 4])
def test_the_loop_of_ones_own_collapses(tiny_folder, data_folder, devices):
    """examples/own_loop.py, on one device and on a mesh: at most 40 lines, and the answers leave the original ones."""
    assert len((ROOT / "examples" / "own_loop.py").read_text().splitlines()) <= 40
    files = (data_folder / "forget20.jsonl", data_folder / "retain80.jsonl")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_loop.py", tiny_folder, *files],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rewards = [float(line.split()[4].rstrip(",")) for line in done.stdout.splitlines()]
    assert len(rewards) == 6 and rewards[-1] > rewards[0] + 0.2
