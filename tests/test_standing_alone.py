"""A workdir stands alone: paths are whole, data and checkpoints are known by what they hold, exports need no data."""

import json
import shutil
from pathlib import Path

import pytest
from lines import refused
from test_resume import arguments

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.errors import UserError
from pmc_jax.settings import paths
from pmc_jax.tracking.fingerprint import BLOCK, BLOCKS, checkpoint_fingerprint
from pmc_jax.tracking.workdir import Workdir, started_with


def test_paths_as_users_write_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "/scratch/ada")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$odd").mkdir()
    for text, whole in {
        "~/x": f"{tmp_path}/x",
        "~": str(tmp_path),
        "$RUNS/x": "/scratch/ada/x",
        "${RUNS}/x": "/scratch/ada/x",
        "a/~/b": "a/~/b",
        "$odd": "$odd",
        "owner/name": "owner/name",
    }.items():
        assert paths.expand(text) == whole
    for text, words in {
        "$NO_SUCH/x": "the variable NO_SUCH is not set",
        "~nobody_of_that_name/x": "no user",
        "$HF_TOKEN/x": "looks like a secret",
        "a\0b": "NUL",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            paths.expand(text)
        assert "hf_secret" not in str(caught.value)


def test_settings_hold_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "f.jsonl").write_text("{}")
    config = settings.default()
    config.model.path, config.data.forget_file, config.data.path = "model", "./f.jsonl", "locuslab/TOFU"
    whole = settings.with_whole_paths(config)
    assert whole.model.path == str(tmp_path / "model") and whole.data.forget_file == str(tmp_path / "f.jsonl")
    assert whole.data.path == "locuslab/TOFU" and whole.data.retain_file == ""


def test_questions_and_models_of_the_home_folder(tmp_path, monkeypatch, tiny_folder):
    import pmc_jax

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "f.jsonl").write_text('{"question": "Who?"}\n')
    shutil.copytree(tiny_folder, tmp_path / "model")
    assert questions.read_file("~/f.jsonl") == [{"question": "Who?"}]
    checkpoint = pmc_jax.load("~/model")
    assert pmc_jax.export(checkpoint, "~/out") == tmp_path / "out" and (tmp_path / "out" / "config.json").exists()


def test_a_checkpoint_is_known_by_what_it_holds(tiny_folder, damaged):
    print_ = checkpoint_fingerprint(str(tiny_folder))
    (damaged / "README.md").write_text("about it")
    assert checkpoint_fingerprint(str(damaged)) == print_ and checkpoint_fingerprint("owner/name") is None
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert checkpoint_fingerprint(str(damaged)) != print_
    large = damaged / "model.safetensors"
    large.write_bytes(b"\0" * (4 * BLOCK * BLOCKS))
    before = checkpoint_fingerprint(str(damaged))
    large.write_bytes(b"\0" * (4 * BLOCK * BLOCKS - 1) + b"?")
    assert checkpoint_fingerprint(str(damaged)) not in (before, print_)


@pytest.fixture
def project(tmp_path, tiny_folder, data_folder):
    """A folder with a checkpoint, files of questions, and a claimed run."""
    home = tmp_path / "project"
    shutil.copytree(tiny_folder, home / "model")
    (home / "f.jsonl").write_text('{"question": "Who?"}\n')
    config = settings.default()
    config.model.path, config.data.forget_file = str(home / "model"), str(home / "f.jsonl")
    with Workdir(str(home / "run")) as work:
        work.claim(started_with("unlearn", config, {"forget": "abc"}))
    return home, config


def started(config, home, **changes):
    moved = {"model.path": str(home / "model"), "data.forget_file": str(home / "f.jsonl")} | changes
    return started_with("unlearn", settings.changed(config, moved), {"forget": "abc"})


def test_a_project_that_moved_goes_on(project, tmp_path):
    home, config = project
    home.rename(tmp_path / "moved")
    work = Workdir(str(tmp_path / "moved" / "run"))
    assert work.settings()["model.path"] == str(tmp_path / "moved" / "model")
    assert work.settings()["data.forget_file"] == str(tmp_path / "moved" / "f.jsonl")
    work.check(started(config, tmp_path / "moved"))
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        work.check(started(config, tmp_path / "moved", seed=1))


def test_a_checkpoint_that_moved_goes_on_and_another_does_not(project, tmp_path):
    home, config = project
    shutil.copytree(home / "model", tmp_path / "elsewhere")
    work = Workdir(str(home / "run"))
    work.check(started(config, home, **{"model.path": str(tmp_path / "elsewhere")}))
    weights = home / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"model.path: another checkpoint than the run began with"):
        work.check(started(config, home))


def test_a_run_of_an_earlier_version_with_relative_paths_goes_on(project, monkeypatch):
    home, config = project
    frozen = json.loads((home / "run" / "config.json").read_text())
    frozen["settings"] |= {"model.path": "model", "data.forget_file": "f.jsonl"}
    for name in ("checkpoints", "beside"):
        del frozen[name]
    (home / "run" / "config.json").write_text(json.dumps(frozen))
    monkeypatch.chdir(home.parent)
    Workdir("project/run").check(started(config, home))


def test_an_export_needs_no_data_and_a_finished_run_neither(cli, tmp_path, data_folder, tiny_folder):
    """The forget file is deleted, as a request to forget may ask for; the folder has moved; from another folder."""
    home = tmp_path / "project"
    shutil.copytree(data_folder, home / "data")
    shutil.copytree(tiny_folder, home / "model")
    words = arguments(home / "model", home / "data", home / "run")
    words += ["--config.train.epochs=1", "--config.log.samples=False", "--config.log.redact=True"]
    assert cli(*words).code == 0
    assert not (home / "run" / "samples").exists() and (home / "run").stat().st_mode & 0o777 == 0o700
    page = (home / "run" / "report.html").read_text()
    answers = [json.loads(line) for line in (home / "run" / "answers" / "before.jsonl").open()]
    assert not any(row["answer"] in page for row in answers if row["set"] == "forget") and "[redacted]" in page
    shutil.rmtree(home / "data")
    assert "nothing was changed" in " ".join(cli(*words).out.split())
    home.rename(tmp_path / "moved")
    run = tmp_path / "moved" / "run"
    assert cli("export", f"--workdir={run}", f"--output={tmp_path / 'out'}").code == 0
    exported = tmp_path / "out" / "model.safetensors"
    assert exported.read_bytes() == (run / "hf" / "model.safetensors").read_bytes()
    assert cli("report", run).code == 0
    (tmp_path / "moved" / "model").rename(tmp_path / "gone")
    assert refused(cli("export", f"--workdir={run}", f"--output={tmp_path / 'two'}"), "--config.model.path=FOLDER")
    assert refused(cli("export", f"--workdir={run}", "--config.seed=3"), "seed is the run's own")
    model = f"--config.model.path={tmp_path / 'gone'}"
    assert cli("export", f"--workdir={run}", f"--output={tmp_path / 'two'}", model).code == 0
    assert refused(cli("export", f"--workdir={run}", f"--output={make_other(tmp_path)}"), "folder of another run")


def make_other(folder: Path) -> Path:
    """The place of another run's result."""
    (folder / "other").mkdir()
    frozen = {"verb": "unlearn", "settings": {}, "data": {}}
    (folder / "other" / "config.json").write_text(json.dumps(frozen))
    return folder / "other" / "hf"
