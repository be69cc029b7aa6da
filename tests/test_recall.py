"""The two recalls of an evaluation: what is left out and counted, what is refused, and that every part tells both."""

import csv
import json

import numpy as np
import pytest
from lines import refused
from scripts import ENGLISH, SPACED, UNSPACED

from pmc_jax.config import default
from pmc_jax.errors import UserError
from pmc_jax.evaluate import attacks, quality, views
from pmc_jax.evaluate.answers import Evaluation, scored, truths
from pmc_jax.evaluate.benchmark import Setup
from pmc_jax.evaluate.benchmarks.quality import never_saw_answers
from pmc_jax.evaluate.recall import check_truths_seen, greedy_recall, mean_recall, recall
from pmc_jax.methods.rewards import score
from pmc_jax.methods.similarity import content_recall

QUESTIONS = ["Where was she born?", "Is it so?", "Who?", "When?"]
TRUTHS = ["She was born in Ankara.", "It is so.", "", "In 1971, in spring."]
ANSWERS = ["Ankara", "It is so.", "Nobody", "In 1971."]


def test_rows_with_nothing_to_count_are_left_out_and_counted():
    by_rouge = greedy_recall("rouge_l_recall", QUESTIONS, TRUTHS, ANSWERS)
    assert by_rouge[[0, 1, 3]].tolist() == score([TRUTHS[i] for i in (0, 1, 3)], [[ANSWERS[i]] for i in (0, 1, 3)])[
        :, 0
    ].tolist() and np.isnan(by_rouge[2])
    by_content = greedy_recall("content_recall", QUESTIONS, TRUTHS, ANSWERS)
    assert by_content[[0, 3]].tolist() == [1.0, 0.5] and np.isnan(by_content[[1, 2]]).all()
    assert content_recall(QUESTIONS[1], TRUTHS[1], ANSWERS[1]) == 1.0, "as a reward, there must be something to lose"
    mean = mean_recall(by_content)
    assert (mean["mean"], mean["rows"], mean["of"]) == (0.75, 2, 4)
    assert mean_recall([np.nan]) == {"mean": None, "low": None, "high": None, "rows": 0, "of": 1}
    samples = recall("content_recall", QUESTIONS[:1], TRUTHS[:1], [["Ankara", "Izmir", ""]])
    assert samples.tolist() == [[1.0, 0.0, 0.0]]


def test_the_summary_leaves_out_what_has_no_recall():
    summary = quality.summarise({"forget": [0.5, np.nan, 1.0], "retain": [np.nan, np.nan], "world_facts": [1.0]})
    alone = quality.summarise({"forget": [0.5, 1.0], "world_facts": [1.0]})
    assert summary == alone and summary["rows"] == {"forget": 2, "world_facts": 1} and summary["unlearn_quality"] == 25
    nothing = quality.summarise({"forget": [np.nan], "retain": [0.5, 1.0]})
    assert nothing["unlearn_quality"] is None and nothing["forget"] is None and nothing["utility"] == 75
    assert nothing["intervals"]["unlearn_quality"] is None


def test_an_evaluation_tells_both_recalls_and_what_rouge_saw():
    rows = [{"question": question} for question in [*QUESTIONS, "Где?"]]
    records = scored("forget", rows, [*ANSWERS, "В Москве, 1931"], [*TRUTHS, "В Твери, 1931"])
    assert [r["rouge_saw_truth"] for r in records] == [1.0, 1.0, None, 1.0, 0.4]
    assert [r["content_recall"] for r in records] == [1.0, None, None, 0.5, pytest.approx(2 / 3)]
    summary = Evaluation(records, "ground truth").summary()
    assert summary["score"] == "rouge_l_recall" and summary["of"] == {"forget": 5} and summary["rows"] == {"forget": 4}
    assert summary["content_recall"]["forget"]["rows"] == 3 and summary["rouge_saw"]["forget"]["truth"] == 0.85
    lines = {(line.name, line.hint): line for line in views.summary_lines(summary)}
    note = lines["forget", "ROUGE-L recall"].note
    assert "4 of 5 rows" in note and "ROUGE saw 85.0% of the truths" in note
    summary["rouge_saw"]["forget"] = {"truth": 0.9999, "answer": 0.998}
    (note,) = [
        line.note for line in views.summary_lines(summary) if (line.name, line.hint) == ("forget", "ROUGE-L recall")
    ]
    assert note.endswith("ROUGE saw 99.8% of the answers"), "what rounds to all is not told"
    assert "3 of 5 rows" in lines["forget", "content recall"].note
    by_content = Evaluation(records, "ground truth", "content_recall").summary()
    assert by_content["forget"] == summary["content_recall"]["forget"]["mean"] != summary["forget"]
    assert {line.hint for line in views.summary_lines(by_content)} == {"content recall", ""}
    assert json.loads(json.dumps(summary, allow_nan=False))["forget"] == summary["forget"]


def test_forget_rows_without_an_answer_are_not_measured_against_the_models():
    rows = [{"question": "a", "answer": "x"}, {"question": "b"}, {"question": "c", "answer": ""}]
    assert truths({"forget": rows}, ["1", "2", "3"]) == ({"forget": ["x", "", ""]}, "ground truth")
    assert truths({"forget": rows[1:]}, ["2", "3"]) == ({"forget": ["2", "3"]}, "original answers")


def test_the_answers_of_a_retain_log(shared):
    """Those of a model that never saw the forget set, where the log is of the same rows."""
    log = json.loads((shared("oracle") / "tofu_Llama-3.2-1B-Instruct_retain90.json").read_text())
    rows = [json.loads(line) for line in (shared("tofu") / "forget10.jsonl").open(encoding="utf-8")]
    config = default()
    setup = Setup(None, config, {"quality": {"forget": rows}}, retain_log=log)
    answers = never_saw_answers(setup)
    texts = ([row[key] for row in rows] for key in ("question", "answer"))
    assert round(mean_recall(greedy_recall("content_recall", *texts, answers))["mean"], 3) == 0.147
    assert never_saw_answers(setup._replace(data={"quality": {"forget": rows[1:]}})) is None
    assert never_saw_answers(setup._replace(retain_log=None)) is None


def test_leakage_of_rows_that_count():
    scores_QS = np.array([[0.0, 1.0], [np.nan, np.nan], [0.5, 0.5]])
    leak, alone = attacks.leakage(scores_QS), attacks.leakage(scores_QS[[0, 2]])
    assert leak == alone | {"of": 3} and leak["measures"]["worst"]["rows"] == 2
    assert attacks.leakage(scores_QS[[1]])["measures"]["worst"]["mean"] is None


@pytest.mark.parametrize("language", SPACED | UNSPACED)
def test_rouge_is_refused_where_it_cannot_see(language):
    rows = [{"question": q, "answer": f"{a} 1931"} for q, a in (SPACED | UNSPACED)[language]]
    english = [{"question": q, "answer": a} for q, a in ENGLISH]
    check_truths_seen(
        "rouge_l_recall", {"forget": english, "retain": [{"question": "?"}, {"question": "?", "answer": ""}]}
    )
    check_truths_seen("content_recall", {"forget": rows})
    for sets, place in (
        ({"forget": rows}, "forget row 1"),
        ({"forget": english, "world_facts": english + rows}, "world facts row 4"),
    ):
        with pytest.raises(UserError, match=f"^{place}.*ROUGE-L sees a-z and 0-9 only, [1-9][0-9]?% ") as caught:
            check_truths_seen("rouge_l_recall", sets)
        assert "evaluate.score=content_recall" in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("answer", ["🙂🙂", "...", "東京"])
def test_an_answer_of_no_letters_is_refused_too(answer):
    with pytest.raises(UserError, match="forget row 1.* 0% of the letters"):
        check_truths_seen("rouge_l_recall", {"forget": [{"question": "Who?", "answer": answer}]})
    check_truths_seen("rouge_l_recall", {"forget": [{"question": "When?", "answer": "1971"}]})


@pytest.fixture
def files(tmp_path, splits):
    """{"data.forget_file", "data.retain_file"} -> files whose forget answers are given, but for the third."""

    def write(name, rows):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows({key: row[key] for key in ("question", "answer")} for row in rows)
        return f"--config.data.{name.split('.')[0]}_file={tmp_path / name}"

    def make(forget=splits["forget20"]):
        some = [row | ({"answer": ""} if i == 2 else {}) for i, row in enumerate(forget)]
        return write("forget.csv", some), write("retain.csv", splits["retain80"][:8])

    return make


@pytest.mark.parametrize("verb", ["evaluate", "unlearn"])
def test_answers_in_another_script_leave_no_folder(cli, files, tiny_folder, tmp_path, verb):
    rows = [{"question": q, "answer": f"{a} 1931"} for q, a in SPACED["Russian"]]
    flags = [f"--config.model.path={tiny_folder}", "--config.train.batch_size=4", f"--workdir={tmp_path / 'run'}"]
    assert refused(cli(verb, *flags, *files(rows)), "forget row 1", "10% of", "evaluate.score=content_recall")
    assert not (tmp_path / "run").exists()


def test_seven_of_eight_answers_by_content_recall(cli, files, tiny_folder, tmp_path):
    """The model knows all answers by heart, and is its own retain and its own original model."""
    flags = {"model.path": tiny_folder, "evaluate.retain_model": tiny_folder, "evaluate.original_model": tiny_folder}
    flags |= {"evaluate.max_new_tokens": 64, "evaluate.leak_samples": 4, "evaluate.relearn_rows": 2}
    flags |= {"evaluate.relearn_updates": 1, "evaluate.score": "content_recall"}
    said = cli("evaluate", *(f"--config.{k}={v}" for k, v in flags.items()), *files(), f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    model = result["model"]
    assert model["forget_truth"] == "ground truth" and (model["rows"]["forget"], model["of"]["forget"]) == (7, 8)
    assert model["forget"] == model["content_recall"]["forget"]["mean"] > 0.8 and model["unlearn_quality"] < 20
    assert model["never_saw"]["forget"]["mean"] == model["forget"], "the model itself"
    assert "7 of 8 rows" in " ".join(said.out.split())
    for leak in result["leakage"].values():
        assert leak["of"] == 7 and leak["measures"] == leak["content_recall"]["measures"]
    assert result["leakage"]["retain_model"]["measures"]["worst"]["mean"] > 0.8
    look = result["relearning"]["model"]["looks"][0]
    assert look["shown"] == look["content_recall"]["shown"] and look["held_back"]["of"] == 5
    assert result["neighbours"]["recall"] == result["neighbours"]["content_recall"]["recall"]
    assert result["fluency"]["forget_perplexity"]["rows"] == 8 and result["fluency"]["forget_perplexity"]["median"] < 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert "by a model that never saw it" in page and "7 of 8 rows" in page and "Content recall" in page
