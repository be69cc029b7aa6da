"""Lanes against batches that shrink: the same samples token for token, whatever the sizes, on several devices and
hosts, and nothing compiled after the first call.
"""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_hosts import reserved_address
from test_sampler import HOT, drafts_of

import pmc_jax
from pmc_jax.distributed import device_kind
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.sampling import refill
from pmc_jax.sampling.buckets import plan_lanes
from pmc_jax.sampling.generate import round_sampler
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prompts import left_pad, with_drafts
from pmc_jax.sampling.pruning import candidate_pruner

SETTINGS = {"sample.temperature": 1.3, "sample.num_samples": 6, "sample.max_new_tokens": 48, "seed": 3}
# Sizes that leave several questions to each lane, and several samples to each row.
FEW, MORE = {"sample.max_rows": 12}, {"sample.max_rows": 40}


@pytest.fixture
def lanes(monkeypatch):
    """lanes(ahead, steps): from here on a CPU draws as an accelerator does."""

    def use(ahead=True, steps=4):
        monkeypatch.setattr(
            device_kind, "CPU", device_kind.CPU._replace(refill=True, decode_ahead=ahead, look_steps=steps)
        )

    return use


@pytest.fixture(scope="module")
def many(tiny_checkpoint, forget_questions):
    return pmc_jax.sample(tiny_checkpoint, forget_questions, **HOT)


@pytest.mark.parametrize("sizes", [FEW, MORE])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_same_samples(tiny_checkpoint, forget_questions, many, small, lanes, sizes, ahead):
    moved = []
    with pytest.MonkeyPatch.context() as patch:
        spied = refill.shrink
        patch.setattr(refill, "shrink", lambda *given: moved.append(given[1]) or spied(*given))
        lanes(ahead)
        assert pmc_jax.sample(tiny_checkpoint, forget_questions, **HOT, config=small(sizes)) == many
        assert bool(moved) == (sizes is not FEW), "the last samples go on in the smaller batch, if there is one"


def test_one_question_with_room_for_all_at_once(tiny_checkpoint, forget_questions, many, small, lanes):
    lanes()
    config = small({"sample.max_rows": 4096})
    assert pmc_jax.sample(tiny_checkpoint, forget_questions[:1], **HOT, config=config) == many[:1]


@pytest.mark.parametrize(
    ("model", "changes"),
    [("checkpoint", FEW), ("phi", MORE | {"sample.top_k": 0, "sample.top_p": 1.0, "sample.max_new_tokens": 12})],
)
def test_the_same_samples_along_drafts(request, forget_questions, many, small, lanes, model, changes):
    checkpoint = request.getfixturevalue(f"tiny_{model}")
    sampler = round_sampler(checkpoint, small(SETTINGS | changes))
    longest = sampler.sampling.max_new_tokens
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    drafts = drafts_of(checkpoint, forget_questions, many, small)
    drafted = with_drafts(plain, drafts, sampler.text.end_tokens, longest)
    wanted = sampler.tokens(plain)
    lanes()
    assert sampler.tokens(plain) == wanted == sampler.tokens(drafted)


@pytest.mark.parametrize("ahead", [False, True])
def test_dropped_samples_are_beginnings_and_the_kept_one_is_the_same(
    tiny_checkpoint, forget_questions, many, small, lanes, ahead
):
    sampler = round_sampler(tiny_checkpoint, small(SETTINGS | FEW))
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    whole = sampler.tokens(plain)
    scorer = make_scorer("rouge_l_recall", forget_questions, [s[0] for s in many], sampler.text)
    scores_QS = scorer.scores(whole)[1]
    lanes(ahead)
    prune = candidate_pruner(scorer, [None] * 8, 6, sampler.text.end_tokens, whole=1)
    pruned = sampler.tokens(plain, prune=prune)
    shorter = 0
    for samples, wanted, scores in zip(pruned, whole, scores_QS):
        best = int(np.argmin(scores))
        assert samples[0] == wanted[0] and samples[best] == wanted[best]
        assert all(part == full[: len(part)] for part, full in zip(samples, wanted))
        shorter += sum(len(part) < len(full) for part, full in zip(samples, wanted))
    assert shorter > 3


def test_nothing_is_compiled_after_the_first_call(tiny_checkpoint, forget_questions, small, lanes):
    """Other rounds, and fewer questions where the capacity says so."""
    lanes()
    sampler = round_sampler(tiny_checkpoint, small(SETTINGS | MORE)).with_capacity(8)
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    first, compiled = sampler.tokens(plain), []

    def on_event(event, _, **__):
        compiled.append(event) if event == "/jax/core/compile/backend_compile_duration" else None

    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        assert sampler.tokens(plain, round_index=1) != first
        assert sampler.tokens(plain.take(slice(0, 3))) == first[:3]
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)
    assert not compiled


def test_nothing_goes_to_a_device_unsaid(tiny_checkpoint, forget_questions, small, lanes):
    lanes()
    sampler = round_sampler(tiny_checkpoint, small(SETTINGS | FEW))
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    with jax.transfer_guard("disallow"):
        assert len(sampler.tokens(plain, prune=lambda seen: set())) == 8


def test_sizes_of_lanes():
    rng = np.random.default_rng(0)
    for _ in range(300):
        questions, shards, n = int(rng.integers(1, 3000)), int(rng.choice([1, 2, 8, 64])), int(rng.integers(1, 30))
        max_rows, longest = int(rng.integers(1, 600)), int(rng.integers(1, 300))
        sampling = SamplingParams(num_samples=n, max_new_tokens=longest)
        plan = plan_lanes(questions, 112, sampling, max_rows, shards, device_kind.ACCELERATOR)
        each = plan.lanes // shards * plan.rows
        assert plan.lanes % shards == 0 and 1 <= each <= max(max_rows, 1) and plan.ring == longest
        assert plan.pages >= 1 and 1 <= plan.reads <= -(-questions // shards) and 0 <= plan.small <= each
    assert plan_lanes(400, 112, SamplingParams(num_samples=20), 256, 2, device_kind.ACCELERATOR)[1:4] == (24, 20, 4)


PROGRAM = """
import json, sys
import jax
folder, task, coordinator, process, model = sys.argv[1:]
task, process = json.loads(task), int(process)
if process >= 0:
    jax.distributed.initialize(coordinator, 2, process)
import pmc_jax
from pmc_jax.distributed import device_kind, meshes
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.sampling.generate import round_sampler
from pmc_jax.sampling.prompts import left_pad
from pmc_jax.sampling.pruning import candidate_pruner
from pmc_jax import config as settings

device_kind.CPU = device_kind.CPU._replace(refill=True, decode_ahead=True, look_steps=4)
checkpoint = pmc_jax.load(folder, mesh=meshes.make_mesh(-1, int(model)))
config, questions = settings.default(), task["questions"]
config.update_from_flattened_dict(task["settings"])
sampler = round_sampler(checkpoint, config)
prompts = left_pad([sampler.text.prompt(q) for q in questions], questions)
scorer = make_scorer("rouge_l_recall", questions, task["references"], sampler.text)
prune = candidate_pruner(scorer, [None] * len(questions), 6, sampler.text.end_tokens)
print(json.dumps([sampler.tokens(prompts), sampler.tokens(prompts, prune=prune)]))
"""


def drawn_by(folder, task, monkeypatch, devices, model, processes):
    """[samples, samples with pruning] of each process."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(devices // processes))
    with reserved_address() as address:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, folder, json.dumps(task), address, str(i), str(model)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in (range(2) if processes == 2 else [-1])
        ]
        said = [process.communicate(timeout=600) for process in started]
    assert all(process.returncode == 0 for process in started), said[0][1][-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.fixture
def task(tiny_checkpoint, tiny_folder, forget_questions, many, small):
    """What the programs draw, and the samples of one device."""
    flat = SETTINGS | FEW | {"model.path": str(tiny_folder)}
    references = [samples[0] for samples in many]
    sampler = round_sampler(tiny_checkpoint, small(flat))
    plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
    return dict(questions=forget_questions, references=references, settings=flat), sampler.tokens(plain)


def test_in_two_processes(tiny_folder, task, monkeypatch):
    one, two = drawn_by(tiny_folder, task[0], monkeypatch, devices=8, model=1, processes=2)
    assert one == two and one[0] == task[1]
    assert all(p == w[: len(p)] for ps, ws in zip(one[1], task[1]) for p, w in zip(ps, ws)) and one[1] != task[1]


@pytest.mark.parity  # needs no torch, but longer than `make test` has
def test_on_eight_devices(tiny_folder, task, monkeypatch):
    """On two meshes as on one device; and with pruning two processes drop what one drops."""
    samples, dropped = {}, {}
    for devices, model, processes in ((4, 2, 1), (8, 1, 1), (8, 1, 2)):
        drawn = drawn_by(tiny_folder, task[0], monkeypatch, devices, model, processes)
        samples[model, processes], dropped[model, processes] = drawn[0]
    assert all(drawn == task[1] for drawn in samples.values())
    assert dropped[1, 1] == dropped[1, 2]
