"""benchmarks/gpu.py at tiny shapes on a CPU, what it derives from its figures, and the rooflines it holds them
against.
"""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tiny import ROOT

from pmc_jax.plan import roofline
from pmc_jax.plan.abstract import make_shape, read_shape

sys.path.insert(0, str(ROOT / "benchmarks"))
import forced
import gpu_table


def measure(out, parts):
    """The small mode's JSON of one model."""
    command = [sys.executable, "benchmarks/gpu.py", "--small", "--models=phi", f"--parts={parts}", f"--out={out}"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("gpu") / "gpu.json", "steps,rounds")


def test_steps_are_held_against_their_bounds(result):
    steps = result["phi"]["steps"]
    assert "error" not in steps, steps
    assert result["machine"]["device"]["product_flops_per_second"] > 0
    for name in ("decode_8", "decode_32", "prefill", "update"):
        step = steps[name]
        assert 0 < step["peak_share"] < 1 and step["bound_share"] > 0 and step["limit"] in ("compute", "memory"), (
            name,
            step,
        )
        assert step["bound_seconds"] == pytest.approx(step["bound_share"] * step["seconds"])
    assert 3 < steps["decode_32"]["flops"] / steps["decode_8"]["flops"] < 5
    update = steps["update"]
    assert update["labels"] < update["real_positions"] <= update["positions"]


def test_rounds_end_and_compile_as_they_should(result):
    rounds = result["phi"]["rounds"]
    assert "error" not in rounds, rounds
    first, *steady = rounds["rounds"]
    job = forced.make_job("phi", small=True)
    assert rounds["mean_length"] == pytest.approx(job.assumed.answer, rel=0.15), (
        "answers were to have the assumed mean length"
    )
    assert all(
        r["tokens"] <= r["row_steps"] and r["answers"] == job.assumed.questions * job.config.sample.num_samples
        for r in rounds["rounds"]
    )
    assert 0.3 < rounds["useful_share"] < 1
    assert first["compiled"] > 3 and steady[-1]["compiled"] == 0
    assert first["updates"] == job.assumed.questions // job.config.train.batch_size
    assert 0 < rounds["first_update_seconds"] < first["seconds"] < rounds["seconds"]["total"]
    runs = rounds["whole_run_seconds"]
    assert first["seconds"] < runs["2"] <= runs["5"] <= runs["never"]


def test_the_script_is_sound_and_says_what_is_missing(tmp_path):
    script = ROOT / "benchmarks/gpu.sh"
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    done = subprocess.run([shellcheck, "--enable=quote-safe-variables", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([script], capture_output=True, text=True, env=os.environ | {"WHEELS": str(tmp_path)})
    assert done.returncode == 2 and done.stderr.splitlines() == [f"gpu.sh: WHEELS={tmp_path}: holds no wheels"]


HAS_TORCH = importlib.util.find_spec("torch") is not None


@(pytest.mark.parity if HAS_TORCH else lambda test: test)
def test_the_yardstick_beside_it(tmp_path):
    """Its figures join what is there already; without torch, that is what is written down."""
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"machine": {"device": {"kind": "NVIDIA H200"}}, "phi": {"steps": {"parameters": 5}}}))
    figures = measure(out, "yardstick")
    yardstick = figures["phi"]["yardstick"]
    assert figures["phi"]["steps"] == {"parameters": 5} and figures["machine"]["device"] == {"kind": "NVIDIA H200"}
    if HAS_TORCH:
        assert yardstick["mean_length"] == pytest.approx(15, rel=0.4) and yardstick["update_rows_per_second"] > 0
    else:
        assert "error" in yardstick and "torch" in "".join(yardstick["log"])


def test_every_figure_is_in_the_tables(result):
    shown = gpu_table.table(result)
    for name in ("phi, decode_32", "phi, update", "phi, rounds"):
        assert f"| {name}" in shown
    failed = gpu_table.table(
        {"llama": {"steps": {"update": {"error": "RESOURCE_EXHAUSTED: out of memory"}}, "run": {"error": "not begun"}}}
    )
    assert "RESOURCE_EXHAUSTED" in failed and "not begun" in failed


def test_answer_lengths_are_those_of_tofu():
    hazard, left, mean, square = forced.hazards(forced.make_job("llama", small=False)), 1.0, 0.0, 0.0
    for length, chance in enumerate(hazard):
        mean, square, left = mean + length * left * chance, square + length**2 * left * chance, left * (1 - chance)
    assert len(hazard) == 131 and left == pytest.approx(0)
    assert mean == pytest.approx(45, abs=0.5) and (square - mean**2) ** 0.5 == pytest.approx(20, abs=1)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_text_and_tokens_are_the_same_number(family):
    job = forced.make_job(family, small=True)
    tokenizer = forced.make_tokenizer(job.raw["vocab_size"], job.assumed, chat=family == "llama")
    ids = [7, 4000, 19, 4]
    assert tokenizer(tokenizer.decode([*ids, forced.END], skip_special_tokens=True))["input_ids"] == ids
    from pmc_jax.data.prompts import Template, make_text

    text = make_text(tokenizer, Template(system=job.config.prompt.system), (forced.END,))
    rows = forced.make_rows(job, family == "llama", 200, 0)
    prompts = [text.prompt(r["question"]) for r in rows]
    assert sum(map(len, prompts)) / len(prompts) == pytest.approx(job.assumed.prompt, rel=0.05)
    assert text.end_token == forced.END and text.answer("w9 w10")[-3:] == [9, 10, forced.END]


def test_what_a_step_must_do():
    model = make_shape(read_shape("Llama-3.2-3B"), remat=False).model
    layers, head = roofline.multiplied(model)
    assert layers + head == pytest.approx(3.21e9, rel=0.01)
    decode = roofline.decode_work(model, 512, 45, 25.6, 64, 2)
    assert decode.flops == 2 * 512 * (layers + head)
    assert decode.bytes == 2 * (layers + head) + 28 * 2 * 8 * 128 * 2 * (512 * 45 + 25.6 * 64)
    h200, v5e = roofline.peak_of("NVIDIA H200"), roofline.peak_of("TPU v5 lite")
    assert roofline.peak_of("NVIDIA H100 80GB HBM3") == roofline.PEAKS["H100"] and roofline.peak_of("cpu") is None
    assert (
        roofline.seconds(decode, h200) == pytest.approx(decode.flops / 989e12)
        and roofline.limit(decode, h200) == "compute"
    )
    few = roofline.decode_work(model, 16, 45, 1, 64, 2)
    assert roofline.limit(few, v5e) == "memory" and roofline.seconds(few, v5e) == pytest.approx(few.bytes / 819e9)
    update = roofline.update_work(model, 2372, 1440, 2)
    assert update.flops == 6 * layers * 2372 + 6 * head * 1440 and update.intensity > 300
