"""Killed at a drawn moment and started again: bit-identical parameters and numbers."""

import json
import random
import subprocess
import time

import pytest


def arguments(folder, data, workdir):
    flags = {
        "model.path": folder,
        "data.path": data,
        "data.forget": "forget20",
        "data.retain": "retain80",
        "train.epochs": 6,
    }
    flags |= {
        "train.batch_size": 4,
        "train.learning_rate": 2e-3,
        "sample.num_samples": 4,
        "sample.temperature": 1.3,
        "sample.max_new_tokens": 32,
    }
    flags |= {"evaluate.max_new_tokens": 32, "evaluate.retain_rows": 8, "pmc.questions_per_round": 4}
    return ["unlearn", f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in flags.items())]


def outcome(run):
    """What must be the same to the bit: parameters, numbers, answers, samples, and each round once in the metrics."""
    result = json.loads((run / "result.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {
        "weights": (run / "hf" / "model.safetensors").read_bytes(),
        "numbers": (result["before"], result["after"], result["solved"], result["sampled_tokens"]),
        "answers": (run / "answers" / "after.jsonl").read_bytes(),
        "samples": {p.name: p.read_bytes() for p in sorted((run / "samples").iterdir())},
        "metrics": [{k: v for k, v in m.items() if k != "seconds"} for m in metrics],
    }


@pytest.fixture(scope="module")
def uninterrupted(command, tiny_folder, data_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(*arguments(tiny_folder, data_folder, run)), check=True, capture_output=True)
    return outcome(run)


def kill_when(process, condition, limit=180):
    """SIGKILL as soon as the condition holds (or the limit is over); True when the process was still running."""
    end = time.monotonic() + limit
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.02)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


@pytest.mark.parametrize("moment", ["before the first round", "twice"])
def test_killed_and_started_again(uninterrupted, command, tiny_folder, data_folder, tmp_path, moment):
    wanted = uninterrupted
    run = tmp_path / "run"
    start = command(*arguments(tiny_folder, data_folder, run))
    drawn = random.Random(moment)
    for _ in range(2 if moment == "twice" else 1):
        rounds = drawn.randint(1, 9)
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if moment == "before the first round":
            assert kill_when(process, lambda: (run / "config.json").exists())
        else:
            # A drawn number of rounds, and a drawn moment after it: in a sampling phase, in an update or in the middle
            # of a save.
            kill_when(process, lambda rounds=rounds: len(list(run.glob("samples/*.jsonl"))) >= rounds)
        assert not (run / "result.json").exists(), "the run was over before it could be killed"
        time.sleep(drawn.random() * 0.1)
    assert subprocess.run(start, capture_output=True).returncode == 0
    assert outcome(run) == wanted
