"""Retain questions without an answer: what the model says now is what must stay."""

import json

import pytest

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.own_answers import whole_sentences, with_own_answers
from pmc_jax.runs import unlearn as runs
from pmc_jax.runs.compare import run_compare
from pmc_jax.settings.comparison import Comparison, Row, with_comparison
from pmc_jax.tracking.files import write_lines


@pytest.fixture(scope="module")
def asked(splits):
    return [{"question": row["question"]} for row in splits["retain80"]]


def test_they_are_the_models_greedy_answers(tiny_checkpoint, asked, small):
    config = small()
    rows = with_own_answers(tiny_checkpoint, [asked[0], {"question": "Who?", "answer": "Me."}, *asked[1:5]], config)
    longest = config.sample.max_new_tokens
    texts = pmc_jax.sample(
        tiny_checkpoint,
        [row["question"] for row in asked[:5]],
        temperature=0.0,
        max_new_tokens=longest,
        config=config,
    )
    assert rows[1] == {"question": "Who?", "answer": "Me."}
    assert [row["answer"] for row in (rows[0], *rows[2:])] == [samples[0] for samples in texts]


@pytest.mark.parametrize(
    ("answer", "ended", "kept"),
    [
        ("He wrote it in 1.5 years. It was", False, "He wrote it in 1.5 years."),
        ("One. Two! Three? Fo", False, "One. Two! Three?"),
        ("成都。父亲是", False, "成都。"),
        ("no end at al", False, ""),
        ("no full stop", True, "no full stop"),
    ],
)
def test_an_answer_that_was_cut_off_keeps_its_whole_sentences(answer, ended, kept):
    assert whole_sentences(answer, ended) == kept


def test_a_model_that_says_nothing_is_refused(tiny_checkpoint, asked, small, monkeypatch):
    monkeypatch.setattr("pmc_jax.sampling.sampler.Sampler.tokens_after", lambda self, asked, *_: [[[]] for _ in asked])
    with pytest.raises(UserError, match=r"data\.retain_answers='own'.*says nothing"):
        with_own_answers(tiny_checkpoint, asked, small())


def test_python_refuses_them_unless_asked_for(tiny_checkpoint, splits, asked, small):
    with pytest.raises(UserError, match="retain, row 1: 'answer' is missing"):
        pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], asked, small())


def test_a_run_keeps_what_the_model_said(tiny_folder, data_folder, asked, small, tmp_path, monkeypatch):
    """Measured against its own answers, the original model keeps all of them; a second start asks nothing again."""
    file = tmp_path / "retain.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    changes = {
        "model.path": str(tiny_folder),
        "data.path": str(data_folder),
        "data.forget": "forget20",
        "data.retain_file": str(file),
        "data.retain_answers": "own",
        "train.epochs": 1,
    }
    result = runs.unlearn(small(changes), str(tmp_path / "run"))
    said = json.loads((tmp_path / "run" / "retain.json").read_text(encoding="utf-8"))
    assert [row["question"] for row in said] == [row["question"] for row in asked]
    assert result["before"]["intervals"]["retain"] == (1.0, 1.0)
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.setattr(runs, "with_own_answers", None)
    again = runs.unlearn(small(changes), str(tmp_path / "run"))
    assert again["after"]["utility"] == result["after"]["utility"] and again["data"] == result["data"]


def test_runs_of_a_comparison_share_the_start_s_answers(tiny_folder, data_folder, splits, tmp_path, monkeypatch, small):
    """The model is asked once for all runs, and once more where the longest answer differs."""
    asked, real = [], runs.with_own_answers
    monkeypatch.setattr(runs, "with_own_answers", lambda *args: asked.append(1) or real(*args))
    file = tmp_path / "questions.jsonl"
    write_lines(file, [{"question": row["question"]} for row in splits["retain80"][:6]])
    values = {"model.path": str(tiny_folder), "data.path": str(data_folder), "data.retain_file": str(file)}
    values |= {"data.retain_answers": "own", "sample.max_new_tokens": 48, "sample.num_samples": 2, "train.epochs": 1}
    points = {"train.learning_rate": 1e-3}, {"train.learning_rate": 4e-3}, {"sample.max_new_tokens": 40}
    config = with_comparison(small(values), Comparison((Row("pmc", points),)), seeds="0")
    results = run_compare(config, str(tmp_path / "compared"))
    assert not results["missing"] and len(asked) == 2
    kept = [(tmp_path / "compared" / "runs" / f"pmc-g{n}-s0" / "retain.json").read_text() for n in (1, 2)]
    assert kept[0] == kept[1]
