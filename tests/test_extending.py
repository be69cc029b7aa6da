"""docs/extending.md as it stands: its modules are added from outside the package, and its commands are run."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import ROOT

import pmc_jax

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODULES = {
    match[1]: match[0] for match in re.finditer(r"(?<=```py\n)# (my_\w+)\.py\n.*?(?=```)", PAGE, flags=re.DOTALL)
}
COMMANDS = re.findall(r"(?<=```sh\n)pmc-jax .*?(?=```)", PAGE, flags=re.DOTALL)
LONGEST = 30  # lines of a toy
SMALL = {
    "data.forget": "forget20",
    "data.retain": "retain80",
    "sample.num_samples": 3,
    "sample.temperature": 1.3,
    "sample.max_new_tokens": 32,
    "train.epochs": 2,
    "train.batch_size": 4,
    "train.learning_rate": 1e-3,
    "evaluate.max_new_tokens": 32,
    "evaluate.retain_rows": 8,
    "evaluate.leak_samples": 0,
    "evaluate.relearn_rows": 0,
}


@pytest.fixture
def pasted(cli, tiny_folder, data_folder, tmp_path, monkeypatch):
    """pasted("my_reward") -> (what was printed, workdir) of the page's command that names this module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    models = {"MODEL": tiny_folder, "STRIPED_MODEL": tmp_path / "striped"}

    def run(module, changes=None):
        (command,) = (shlex.split(c.replace("\\\n", " ")) for c in COMMANDS if f"{module}:" in c)
        assert command[0] == "pmc-jax"
        places = models | {"DATA": data_folder}
        flags = [re.sub("=(MODEL|STRIPED_MODEL|DATA)$", lambda m: f"={places[m[1]]}", flag) for flag in command[1:]]
        known = {flag.split("=")[0] for flag in flags}
        small = {k: v for k, v in (SMALL | (changes or {})).items() if f"--config.{k}" not in known}
        said = cli(*flags, *(f"--config.{k}={v}" for k, v in small.items()))
        assert said.code == 0, said.err
        workdir = Path(next(flag for flag in flags if flag.startswith("--workdir=")).removeprefix("--workdir="))
        return said, tmp_path / workdir

    return run


def result_of(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_the_page_has_one_of_each_and_none_is_long():
    assert sorted(MODULES) == ["my_benchmark", "my_family", "my_objective", "my_reward"]
    assert len(COMMANDS) == len(MODULES)
    for name, code in MODULES.items():
        assert len(code.splitlines()) <= LONGEST, name


def test_an_objective(pasted):
    _, workdir = pasted("my_objective", {"train.epochs": 6, "train.learning_rate": 3e-3})
    updates = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["forget_loss"] for line in updates if line["kind"] == "update"]
    assert losses[-1] > losses[0] + 0.5, "ascent raises the forget loss"
    result = result_of(workdir)
    assert result["after"]["forget"] < result["before"]["forget"]


def test_a_reward(pasted):
    _, workdir = pasted("my_reward")
    rows = [json.loads(line) for line in (workdir / "samples" / "round_00000.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in (workdir / "answers" / "before.jsonl").read_text().splitlines()]
    original = {row["question"]: row["answer"] for row in before if row["set"] == "forget"}
    for row in rows:
        wanted = set(re.findall(r"\d+", original[row["question"]])) or {original[row["question"]]}
        assert row["scores"] == [sum(n in answer for n in wanted) / len(wanted) for answer in row["samples"]]
        assert row["scores"][row["chosen"]] == min(row["scores"])


def test_a_benchmark(pasted):
    said, workdir = pasted("my_benchmark")
    assert "Capitals known" in said.out and "Capitals known" in (workdir / "report.html").read_text()
    assert len(result_of(workdir)["capitals"]["answers"]) == 1


def test_a_family(pasted, tiny_folder, tmp_path):
    striped = Path(shutil.copytree(tiny_folder, tmp_path / "striped"))
    tensors = load_file(striped / "model.safetensors")
    renamed = {name.replace("model.", "decoder."): x for name, x in tensors.items()}
    save_file(renamed, striped / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((striped / "config.json").read_text())
    (striped / "config.json").write_text(json.dumps(config | {"architectures": ["StripedForCausalLM"]}))

    _, workdir = pasted("my_family", {"prompt.system": ""})
    assert result_of(workdir)["before"]["rows"]["forget"] == 8
    assert load_file(workdir / "hf" / "model.safetensors").keys() == renamed.keys(), "it is written as it was read"
    own, plain = pmc_jax.load(str(striped), family="my_family:STRIPED"), pmc_jax.load(str(tiny_folder))
    tokens_BT = np.random.default_rng(0).integers(5, 500, (1, 100))
    mine, llama = (np.asarray(pmc_jax.logits(model, tokens_BT)) for model in (own, plain))
    np.testing.assert_allclose(mine[:, :64], llama[:, :64], atol=1e-4)
    assert np.abs(mine[:, 64:] - llama[:, 64:]).max() > 0.01, "beyond the window"
