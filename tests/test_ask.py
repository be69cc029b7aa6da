"""`pmc-jax ask` on the tiny checkpoint: who is asked, what is printed, and where the questions come from."""

import io
import json

import pytest
from lines import refused

from pmc_jax import config as settings
from pmc_jax.runs import ask


@pytest.fixture
def truths(splits):
    """{question: answer} of the first two authors' forget rows."""
    return {row["question"]: row["answer"] for row in splits["forget20"][:2]}


@pytest.fixture
def workdir(tiny_folder, damaged, tmp_path):
    """A finished unlearning run: the tiny checkpoint before, a copy of it after."""
    run = tmp_path / "run"
    run.mkdir()
    flat = settings.to_flat(settings.default()) | {"model.path": str(tiny_folder)}
    flat["pmc.drop_losers"] = flat.pop("pmc.prune_candidates")  # as earlier versions called it
    (run / "config.json").write_text(json.dumps({"verb": "unlearn", "settings": flat, "data": {}}))
    damaged.rename(run / "hf")
    return run


def rewrite(workdir, **changes):
    """The run's config.json with other entries."""
    file = workdir / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_both_models_of_an_unlearning_run_answer_side_by_side(cli, workdir, truths):
    said = cli("ask", workdir, *truths, "--json")
    assert said.code == 0, said
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["question"] for row in rows] == list(truths)
    for row in rows:
        assert row["original"] == row["unlearned"] == [truths[row["question"]]]
    said = cli("ask", workdir, *truths)
    words = set(said.out.split())
    assert said.code == 0 and {"original", "unlearned"} <= words
    assert all(set(question.split()) <= words for question in truths)


def test_a_checkpoint_and_a_finetuning_run_have_one_column(cli, workdir, tiny_folder, truths):
    question = next(iter(truths))
    rewrite(workdir, verb="finetune")
    for target in (workdir, tiny_folder):
        said = cli("ask", target, question, "--json")
        assert said.code == 0 and json.loads(said.out) == {"question": question, "answer": [truths[question]]}


def test_samples_are_drawn_with_the_settings_of_the_run_or_of_the_command_line(cli, workdir, truths):
    question = next(iter(truths))
    hot = cli("ask", workdir, question, "--json", "--samples=3", "--config.sample.temperature=50.0")
    cold = cli("ask", workdir, question, "--json", "--samples=3", "--config.sample.temperature=0.001")
    hot, cold = (json.loads(said.out) for said in (hot, cold))
    assert cold["original"] == [truths[question]] * 3
    assert len(set(hot["original"])) == 3 and hot["original"] == hot["unlearned"]


def test_questions_from_a_pipe_are_put_at_once(cli, tiny_folder, truths, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n".join(truths) + "\n"))
    said = cli("ask", tiny_folder, "--json")
    assert [json.loads(line)["answer"] for line in said.out.splitlines()] == [[answer] for answer in truths.values()]
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    assert refused(cli("ask", tiny_folder), "no question given")


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_questions_from_a_terminal_until_it_is_closed(end):
    typed = iter(["Who?", "", "  What? "])

    def read(prompt):
        for line in typed:
            return line
        raise end

    assert list(ask.read_terminal(read)) == ["Who?", "What?"]


def test_the_workdir_of_a_demo_stands_for_its_unlearning_run(workdir, tmp_path):
    demo = tmp_path / "demo"
    demo.mkdir()
    workdir.rename(demo / "unlearned")
    subject = ask.find_subject(str(demo))
    assert list(subject.models) == ["original", "unlearned"]
    assert subject.models["unlearned"] == str(demo / "unlearned" / "hf")


def test_whom_it_cannot_ask(cli, workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (workdir / "hf").rename(workdir / "elsewhere")
    assert refused(cli("ask"), "name a workdir")
    assert refused(cli("ask", "/no/such", "Who?"), "/no/such", "no such workdir")
    assert refused(cli("ask", "gs://bucket/run", "Who?"), "mount the bucket")
    assert refused(cli("ask", tmp_path / "empty", "Who?"), "empty", "no config.json")
    assert refused(cli("ask", tmp_path / "broken", "Who?"), "not valid JSON")
    assert refused(cli("ask", workdir, "Who?"), "no model yet", "pmc-jax export")
    assert refused(cli("ask", workdir, "Who?", "--samples=-1"), "samples")
