"""Mistakes on the command line: one clear line, exit code 2, nothing written. And what the verbs do when all is
well.
"""

import json
import subprocess

import pytest
from lines import refused

from pmc_jax import config as settings
from pmc_jax.tracking.workdir import Workdir


@pytest.fixture
def unlearn(cli, tiny_folder, data_folder, tmp_path):
    """unlearn(*more) -> Said: a short run on the tiny checkpoint; later flags win."""

    def run(*more):
        flags = {"--config.model.path": tiny_folder, "--config.data.path": data_folder, "--workdir": tmp_path / "run"}
        flags |= {"--config.data.forget": "forget20", "--config.data.retain": "retain80", "--config.train.epochs": 1}
        flags |= {
            "--config.train.batch_size": 4,
            "--config.sample.num_samples": 2,
            "--config.sample.max_new_tokens": 16,
        }
        flags |= {"--config.evaluate.max_new_tokens": 16, "--config.evaluate.retain_rows": 4}
        flags |= dict(flag.split("=", 1) for flag in more)
        return cli("unlearn", *(f"{name}={value}" for name, value in flags.items() if value != "ABSENT"))

    return run


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.model.path=/no/such/folder"], ["/no/such/folder", "no such folder"]),
        (["--config.data.path=/no/such/data"], ["/no/such/data", "no such folder"]),
        (["--config.model.path=/no/such/folder", "--config.data.path=/no/such/data"], ["model.path='/no/such/folder'"]),
        (["--config.data.forget=forget99"], ["forget99", "forget20"]),
        (["--config.sample.num_samples=0"], ["sample.num_samples=0", "1 or more"]),
        (["--config.sample.temperature=-1"], ["sample.temperature=-1", "0 or more"]),
        (["--config.sample.top_p=0"], ["sample.top_p", "(0, 1]"]),
        (["--config.train.batch_size=9"], ["train.batch_size=9", "8 forget questions"]),
        (["--config.pmc.questions_per_round=3"], ["questions_per_round=3", "batch_size"]),
        (["--config.mesh.data=64"], ["64", "devices"]),
        (["--config.prompt.style=plan"], ["prompt.style", "plain"]),
        (["--config.prompt.template_options.date_string=now"], ["prompt.template_options.date_string", "prompt.date"]),
        (["--config.data.forget_file=/no/such.jsonl"], ["/no/such.jsonl", "no such file"]),
        (["--config.train.learning_rat=1"], ["learning_rat", "train.learning_rate"]),
        (["--config.train.epochs=many"], ["many"]),
        (["--config.train.max_length=12"], ["train.max_length=12", "no room for an answer"]),
        (["--config=/no/preset.py"], ["/no/preset.py"]),
        (["--workdir=ABSENT"], ["--workdir"]),
        (["--workdir=gs://bucket/my/run"], ["gs://bucket/my/run", "mount the bucket", "/mnt/bucket/my/run"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(unlearn, tmp_path, flags, words):
    assert refused(unlearn(*flags), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("forget.jsonl", "", ["forget.jsonl", "no rows"]),
        ("forget.jsonl", '{"question": "Who?"}\n{"answer": "Me."}\n', ["forget.jsonl, row 2", "'question' is missing"]),
        ("forget.jsonl", '{"question": "  "}\n', ["row 1", "is empty"]),
        ("forget.jsonl", '{"question": "Who?"\n', ["line 1", "JSON"]),
        ("forget.csv", "question,answer\nWho?,Me, I think\n", ["forget.csv, row 1", "quotes"]),
        (
            "forget.jsonl",
            '{"question": "When?", "answer": 1951}\n',
            ["forget.jsonl, row 1", "'answer' is a int, not text"],
        ),
        ("forget.csv", "query,answer\nWho?,Me\n", ["row 1", "question"]),
        ("forget.txt", "Who?\n", ["forget.txt", ".jsonl"]),
    ],
)
def test_a_bad_forget_file_is_named_with_its_row(unlearn, tmp_path, name, text, words):
    file = write(tmp_path / name, text)
    assert refused(unlearn(f"--config.data.forget_file={file}"), *words)
    assert not (tmp_path / "run").exists()


def test_a_retain_row_without_an_answer(unlearn, tmp_path):
    file = write(tmp_path / "retain.jsonl", '{"question": "Who?"}\n')
    assert refused(unlearn(f"--config.data.retain_file={file}"), "retain.jsonl, row 1", "'answer' is missing")


def test_another_architecture_is_refused_by_name(unlearn, damaged):
    raw = json.loads((damaged / "config.json").read_text()) | {"architectures": ["GPT2LMHeadModel"]}
    write(damaged / "config.json", json.dumps(raw))
    assert refused(unlearn(f"--config.model.path={damaged}"), "GPT2LMHeadModel", "Llama, Phi, Qwen2", "ForCausalLM")


def test_truncated_weights(unlearn, damaged, tmp_path):
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert refused(unlearn(f"--config.model.path={damaged}"), "model.safetensors", "truncated")
    assert not (tmp_path / "run").exists()


def test_settings_may_stand_before_the_preset(cli, tmp_path):
    """Refused for the setting's value and not for its place; the preset is read."""
    said = cli(
        "unlearn", "--config.sample.num_samples=0", "--config=configs/tofu_phi.py", f"--workdir={tmp_path / 'run'}"
    )
    assert refused(said, "sample.num_samples=0")


def test_a_folder_that_is_no_run(unlearn, tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "thesis.txt", "mine")
    assert refused(unlearn(), "not empty")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_verbs_flags_and_help(cli):
    assert refused(cli(), "no verb", "unlearn")
    assert refused(cli("forget"), "'forget'", "unlearn")
    assert refused(cli("unlearn", "--wrkdir=x"), "wrkdir")
    assert refused(cli("unlearn", "stray", "--workdir=x"), "stray")
    assert refused(cli("export", "--workdir=/no/run"), "/no/run")
    assert refused(cli("demo", "--config=tofu", "--workdir=/no/demo"), "--config=demo")
    assert refused(
        cli("unlearn", "--config=tofu_lama"), "tofu_lama", "choose one of ablations, ", ", tofu, tofu_llama, tofu_phi"
    )
    assert refused(cli("unlearn", "--config.pmc.drop_losers=True"), "it is called pmc.prune_candidates now")
    assert refused(cli("unlearn", "--round=3", "--workdir=x"), "--round", "export", "not of unlearn")
    said = cli("--help")
    assert said.code == 0
    for word in ("unlearn", "finetune", "ask", "evaluate", "export", "demo", *(s.name for s in settings.SETTINGS)):
        assert word in said.out


def test_the_help_of_a_verb_shows_that_verb_only(cli):
    for words in (("export", "--help"), ("help", "export")):
        text = cli(*words).out
        assert "--round" in text and "--topology" not in text and "pmc.reward" not in text
    assert "pmc.reward" in cli("unlearn", "--help").out and "--topology" not in cli("unlearn", "-h").out
    assert "--topology" in cli("plan", "--config=tofu", "--help").out


def test_a_help_whose_reader_has_seen_enough(command):
    done = subprocess.run(
        f"{' '.join(command('--help'))} | head -1", shell=True, capture_output=True, text=True, executable="/bin/bash"
    )
    assert done.returncode == 0 and done.stdout.startswith("Make a language model") and not done.stderr


def test_a_run_from_start_to_end(unlearn, cli, tmp_path, tiny_folder):
    """All files of the contract; finished, it changes nothing; other settings are refused by name; evaluate and export
    work on what it left.
    """
    run = tmp_path / "run"
    assert unlearn().code == 0
    result = json.loads((run / "result.json").read_text())
    for when in ("before", "after"):
        for key in (
            "forget",
            "forget_paraphrased",
            "retain",
            "world_facts",
            "real_authors",
            "unlearn_quality",
            "utility",
        ):
            assert isinstance(result[when][key], float), (when, key)
        assert result[when]["forget_truth"] == "ground truth"
    assert {"load", "compile", "sample", "score", "update", "save", "evaluate", "total"} <= result["seconds"].keys()
    assert all(value >= 0 for value in result["seconds"].values())
    frozen = json.loads((run / "config.json").read_text())
    assert frozen["settings"]["train.epochs"] == 1 and frozen["versions"]["jax"] and len(frozen["data"]["forget"]) == 64
    samples = [json.loads(line) for line in (run / "samples" / "round_00000.jsonl").open()]
    assert len(samples) == 8 and all(
        len(s["samples"]) == len(s["scores"]) == 2 and s["chosen"] in (0, 1) for s in samples
    )
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [m["kind"] for m in metrics] == ["update", "update", "round"]
    assert "<script" in (run / "report.html").read_text() and any((run / "events").iterdir())
    assert (run / "hf" / "model.safetensors").exists() and (run / "answers" / "after.jsonl").exists()

    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    said = unlearn()
    assert said.code == 0 and "nothing was changed" in " ".join(said.out.split())
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert refused(unlearn("--config.sample.temperature=0.7"), "sample.temperature: 0.9 there, 0.7 now")
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}

    assert cli("export", f"--workdir={run}", "--round=0", f"--output={tmp_path / 'out'}").code == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (run / "hf" / "model.safetensors").read_bytes()
    assert refused(cli("export", f"--workdir={run}", "--round=7"), "round 7", "[0]")


def test_an_export_deletes_no_run_and_no_original(unlearn, cli, tmp_path, damaged, monkeypatch):
    run = tmp_path / "run"
    assert unlearn(f"--config.model.path={damaged}").code == 0
    before = sorted(run.rglob("*"))
    monkeypatch.chdir(run)
    for output, words in (
        (run, ["did not write"]),
        (".", ["did not write"]),
        (damaged, ["made from"]),
    ):
        assert refused(cli("export", f"--workdir={run}", f"--output={output}"), *words)
    assert sorted(run.rglob("*")) == before and (damaged / "model.safetensors").exists()


def test_a_run_is_not_started_twice_at_once(unlearn, tmp_path):
    with Workdir(str(tmp_path / "run")) as work:
        work.path.mkdir()
        work.hold()
        assert refused(unlearn(), "another process is running in it")
        assert [file.name for file in work.path.iterdir()] == ["lock"]
    assert unlearn().code == 0


def test_a_run_that_forgot_nothing_says_so(unlearn):
    """At a rate of next to nothing, and with the likeliest answers alone, all that is drawn is the original answer."""
    nothing = [
        "--config.train.learning_rate=1e-9",
        "--config.sample.temperature=0.01",
        "--config.sample.max_new_tokens=64",
    ]
    assert "Next to nothing was forgotten" in " ".join(
        unlearn(*nothing, "--config.evaluate.max_new_tokens=64").out.split()
    )


def test_a_page_that_a_kill_left_unwritten(unlearn, tmp_path):
    assert unlearn().code == 0
    (tmp_path / "run" / "report.html").unlink()
    assert unlearn().code == 0 and (tmp_path / "run" / "report.html").exists()


def test_evaluation_during_the_run(unlearn, tmp_path):
    """After each round but the last, which is evaluated at the end anyway: metrics.jsonl, TensorBoard events, curves in
    the report.
    """
    assert unlearn("--config.train.epochs=3", "--config.evaluate.every=1").code == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    found = [r for r in rows if r["kind"] == "evaluation"]
    assert [r["round"] for r in found] == [0, 1] and all(
        0 <= r["unlearn_quality"] <= 100 and 0 <= r["utility"] <= 100 for r in found
    )
    assert all(0 <= r["content_recall"]["forget"]["mean"] <= 1 for r in found)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (
        1 <= result["before"]["forget_perplexity"]["median"] < 2 <= 2 * result["after"]["forget_perplexity"]["median"]
    )
    assert result["after"]["forget_perplexity"]["rows"] == 8
    written = b"".join(p.read_bytes() for p in (tmp_path / "run" / "events").iterdir())
    assert all(name in written for name in (b"unlearn_quality", b"forget_content_recall", b"retain_loss"))
    assert "evaluated during the run" in (tmp_path / "run" / "report.html").read_text()


def test_forget_questions_without_answers(unlearn, tmp_path, forget_questions):
    lines = "".join(json.dumps({"question": q}) + "\n" for q in forget_questions)
    said = unlearn(f"--config.data.forget_file={write(tmp_path / 'forget.jsonl', lines)}")
    assert said.code == 0 and "original model's own answers" in " ".join(said.out.split())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["before"]["forget"] == 1.0 and result["after"]["forget_truth"] == "original answers"
    assert result["after"]["forget_paraphrased"] is None


def test_the_installed_command(command, tmp_path):
    """In a process of its own, as users start it."""
    done = subprocess.run(
        command("unlearn", "--config.model.path=/no/such", f"--workdir={tmp_path / 'run'}"),
        capture_output=True,
        text=True,
    )
    assert refused(done, "/no/such")


@pytest.mark.parametrize("words", [("compare", "ablations:nope"), ("unlearn", "rivals:nope")])
def test_a_name_behind_a_presets_colon_that_is_not_one_of_its(cli, tmp_path, words):
    verb, preset = words
    said = cli(verb, f"--config={preset}", f"--workdir={tmp_path / 'run'}")
    assert said.code == 2 and said.err.startswith(f"pmc-jax: --config={preset}: choose one of ")
    assert "Traceback" not in said.err and not (tmp_path / "run").exists()
