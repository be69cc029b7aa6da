"""LUME on files of its schema: every number against rouge-score, plain Python and scikit-learn."""

import json
import statistics

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sklearn.metrics import roc_auc_score

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.evaluate import lume
from pmc_jax.evaluate.benchmark import Setup
from pmc_jax.evaluate.benchmarks import lume as benchmark
from pmc_jax.evaluate.lines import table
from pmc_jax.runs.presets import load_preset
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import write_lines

NAMES = {"forget": ("Ada", "Bob"), "retain": ("Cleo", "Dan")}
CITIES = {"Ada": "Basel", "Bob": "Lyon", "Cleo": "Oslo", "Dan": "Turin"}


def lume_rows(side):
    """Two texts of each task, each with one completion and two questions, in LUME's columns."""
    for number, task in enumerate(lume.TASKS):
        for name in NAMES[side]:
            city, base = CITIES[name], f'"{number}f24c511-{name}"' if task == "Task1" else f"{number}f24c511-{name}"
            rows = (
                ("sc1", f"Text {number}: {name} was born in", f"{city} and wrote {number + 2} novels about the sea."),
                ("qa0", f"Text {number}: where was {name} born?", city),
                ("qa1", f"Text {number}: how many novels did {name} write?", str(number + 2)),
            )
            yield from ({"id": base + end, "input": i, "output": o, "task": task} for end, i, o in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files as the authors' repository and the task's data have them."""
    folder = tmp_path_factory.mktemp("lume")
    (folder / "mia_data").mkdir()
    documents = {"member": "retain", "nonmember": "forget"}
    for side in NAMES:
        write_lines(folder / f"{side}.jsonl", list(lume_rows(side)))
    for name, side in documents.items():
        texts = [f"{row['input']} {row['output']}" for row in lume_rows(side)]
        write_lines(folder / "mia_data" / f"{name}.jsonl", [{"id": str(i), "document": t} for i, t in enumerate(texts)])
    return folder


@pytest.fixture
def preset(folder):
    """LUME's settings for the folder."""
    return settings.changed(load_preset("lume"), {"data.path": str(folder)})


def test_from_files_to_scores(cli, tiny_folder, folder, tmp_path):
    """A model that learnt one side knows it, and not the other; all is recomputed from its answers."""
    given = ["--config=lume", f"--config.data.path={folder}"]
    learn = {"train.epochs": 60, "train.batch_size": 6, "train.learning_rate": 5e-3, "data.finetune": "retain"}
    flags = [f"--config.{k}={v}" for k, v in learn.items()]
    said = cli("finetune", *given, *flags, f"--config.model.path={tiny_folder}", f"--workdir={tmp_path / 'known'}")
    assert said.code == 0, said.err
    quick = ["--config.evaluate.max_new_tokens=32", "--config.evaluate.leak_samples=0"]
    quick += ["--config.evaluate.relearn_rows=0", f"--config.model.path={tmp_path / 'known' / 'hf'}"]
    said = cli("evaluate", *given, *quick, f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    answers = json.loads((tmp_path / "run" / "parts" / "lume_answers.json").read_text())["found"]

    scorer, kept, cells = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True), [], result["lume"]["cells"]
    for side in NAMES:
        rows = list(zip(lume_rows(side), answers[side], strict=True))
        for task in lume.TASKS:
            own = [(row["id"], row["output"], answer) for row, answer in rows if row["task"] == task]
            recall = [scorer.score(t, a)["rougeL"].recall for i, t, a in own if i[:-1].endswith("sc")]
            exact = [t.strip().lower() == a.strip().lower() for i, t, a in own if i[:-1].endswith("qa")]
            assert (len(recall), len(exact)) == (2, 4)
            for form, values in (("completion", recall), ("answer", exact)):
                mean = statistics.fmean(values)
                assert cells[f"{task} {form} {side}"]["mean"] == pytest.approx(mean, abs=1e-12)
                kept.append(1 - mean if side == "forget" else mean)
    assert min(kept[6:]) > 0.9 and max(1 - k for k in kept[:6]) < 0.9, "one side was learnt, the other was not"
    aggregate = result["lume"]["task_aggregate"]
    assert aggregate == {"value": pytest.approx(statistics.harmonic_mean(kept), abs=1e-12), "cells": 12}
    assert result["lume"]["membership"]["auc"] > 0.6 and f"{aggregate['value']:.3f}" in said.out
    assert result["lume"]["final"]["reason"] == "mmlu is not among evaluate.benchmarks"
    assert "Task3 answer, forget" in (tmp_path / "run" / "report.html").read_text()


def test_losses_of_documents_and_the_membership_score(tiny_checkpoint, preset):
    """Against log-softmax in numpy of one document at a time, and scikit-learn's area."""
    sets, sampler = benchmark.load_sets(preset), greedy_sampler(tiny_checkpoint, preset)
    setup = Setup(None, preset, {"lume": sets}, sampler)
    losses = benchmark.measure_documents(setup)
    for name in benchmark.DOCUMENTS:
        for row, loss in zip(sets[name], losses[name], strict=True):
            tokens_T = np.array(tiny_checkpoint.tokenizer(row["document"])["input_ids"])
            logits_TV = np.asarray(pmc_jax.logits(tiny_checkpoint, tokens_T[None]), np.float64)[0]
            log_p_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
            assert loss == pytest.approx(-log_p_TV[np.arange(len(tokens_T) - 1), tokens_T[1:]].mean(), abs=1e-4)
    found = benchmark.membership_of(losses)
    labels = [1] * len(losses["member"]) + [0] * len(losses["nonmember"])
    auc = roc_auc_score(labels, [-loss for side in losses.values() for loss in side])
    assert found["auc"] == pytest.approx(auc, abs=1e-12)
    assert found["value"] == pytest.approx(1 - abs(auc - 0.5) * 2, abs=1e-12) and found["rows"] == 36
    assert benchmark.no_documents(setup) is None
    assert "mia_data" in benchmark.no_documents(setup._replace(data={"lume": {"forget": [], "retain": []}}))


def test_an_aggregate_of_fewer_cells_says_so():
    rows = [{"id": "1sc1", "task": "Task1", "answer": "a b"}, {"id": "1qa0", "task": "Task1", "answer": " Yes"}]
    scores = {side: lume.cell_scores(rows, ["a c", "yes "]) for side in lume.SIDES}
    assert scores["forget"] == {("Task1", "completion"): [0.5], ("Task1", "answer"): [1.0]}
    aggregate = lume.task_aggregate(lume.summarise_cells(scores))
    assert aggregate == {"value": 0.0, "cells": 4}, "1 - 1 is one of them"
    result = {"cells": lume.summarise_cells(scores), "task_aggregate": aggregate}
    result["membership"] = {"value": None, "reason": "no"}
    result["final"] = benchmark.final_of(result, {"reason": "no MMLU"})
    assert result["final"] == {"value": None, "reason": "needs rows of all three tasks; no; no MMLU"}
    whole = {"task_aggregate": {"value": 0.8, "cells": 12}, "membership": {"value": 0.4}}
    assert benchmark.final_of(whole, {"mmlu": {"mean": 0.3}}) == {"value": pytest.approx(0.5)}
    lines = {line.name: line for line in table(benchmark.VIEW, result).lines}
    assert lines["Task aggregate"].note == "of 4 of the 12 values only"
    assert lines["Task3 answer, retain"].value is None and lines["Membership score"].note == "no"
    assert lume.task_aggregate({}) == {"value": None, "cells": 0}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"id": "abc"}, "row 2: 'id' is 'abc'"),
        ({"id": None}, "row 2: 'id' is None"),
        ({"task": "Task4"}, "row 2: 'task' is 'Task4'"),
        ({"output": " "}, "row 2: 'answer' is empty"),
    ],
)
def test_rows_that_are_not_lume_are_refused(preset, tmp_path, change, words):
    rows = list(lume_rows("forget"))
    write_lines(tmp_path / "mine.jsonl", [rows[0], rows[1] | change])
    with pytest.raises(UserError, match=words):
        benchmark.load_sets(settings.changed(preset, {"data.forget_file": str(tmp_path / "mine.jsonl")}))


def test_the_sample_is_read_and_scored(shared, preset):
    """120 rows of each side, of tasks 1 and 2: true answers have 1 in every cell, empty ones 0."""
    sets = benchmark.load_sets(settings.changed(preset, {"data.path": str(shared("lume-mini"))}))
    assert {side: len(rows) for side, rows in sets.items()} == {"forget": 120, "retain": 120}
    for answer_of, mean in ((lambda row: f" {row['answer'].upper()}\n", 1.0), (lambda row: "", 0.0)):
        scores = {side: lume.cell_scores(rows, [answer_of(row) for row in rows]) for side, rows in sets.items()}
        cells = lume.summarise_cells(scores)
        assert sum(cell["rows"] for cell in cells.values()) == 240
        assert all(cell["mean"] == (None if "Task3" in name else mean) for name, cell in cells.items())
