"""Killed at a drawn moment and started again: bit-identical parameters and numbers."""

import json
import random
import subprocess

import pytest
from held import held, until


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
        "metrics": [{k: v for k, v in m.items() if k not in ("seconds", "speed")} for m in metrics],
    }


@pytest.fixture(scope="module")
def uninterrupted(command, tiny_folder, data_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(*arguments(tiny_folder, data_folder, run)), check=True, capture_output=True)
    return outcome(run)


@pytest.mark.parametrize("moment", ["before the first round", "twice"])
def test_killed_and_started_again(uninterrupted, command, tiny_folder, data_folder, tmp_path, moment):
    run, words = tmp_path / "run", arguments(tiny_folder, data_folder, tmp_path / "run")
    drawn = random.Random(moment)
    # A drawn write after a drawn round's samples: in an update or in the middle of a save.
    first, second = sorted(drawn.sample(range(10), 2))
    moments = [(f"round_{number:05d}.jsonl", drawn.randint(0, 16)) for number in (first, second)]
    for number, (after, count) in enumerate(moments if moment == "twice" else [("config.json", 3)]):
        marker = tmp_path / f"stands_still_{number}"
        start = held(words, marker, run, after, count)
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(marker.exists, [process])
        process.kill()
        process.wait()
        assert not (run / "result.json").exists()
    assert subprocess.run(command(*words), capture_output=True).returncode == 0
    assert outcome(run) == uninterrupted
