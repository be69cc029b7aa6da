"""Multiple choice by the letter: rows of WMDP, MMLU and ARC, the prompt, accuracy, and the command line."""

import json

import datasets
import numpy as np
import pytest

from pmc_jax.data.splits import has_split, load_split
from pmc_jax.errors import UserError
from pmc_jax.evaluate import choices
from pmc_jax.evaluate.raw_text import continuation_row
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import write_lines

TEXTS = ["Basel", "Lyon", "Oslo", "Turin"]
WMDP_ROW = {"question": " Where is it? ", "choices": TEXTS, "answer": 2}
ARC_ROW = {"id": "1", "question": "Where?", "choices": {"text": TEXTS[:3], "label": ["1", "2", "3"]}, "answerKey": "3"}


def questions(count):
    """Rows as WMDP and MMLU have them; the right one goes round."""
    return [{"question": f"What is {n}?", "choices": [f"{n}{t}" for t in TEXTS], "answer": n % 4} for n in range(count)]


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(str(path))


@pytest.fixture
def folders(tmp_path):
    """Folders as the three repositories have them on the hub."""
    for name in ("bio", "chem", "cyber"):
        parquet(tmp_path / "wmdp" / f"wmdp-{name}" / "test-00000-of-00001.parquet", questions(5))
    for split in ("test", "validation"):
        rows = [row | {"subject": "astronomy"} for row in questions(6)]
        parquet(tmp_path / "mmlu" / "all" / f"{split}-00000-of-00001.parquet", rows)
    for name in ("ARC-Easy", "ARC-Challenge"):
        parquet(tmp_path / "arc" / name / "test-00000-of-00001.parquet", [ARC_ROW] * 3)
    return {name: tmp_path / name for name in ("wmdp", "mmlu", "arc")}


def test_the_prompt_and_the_rows_of_three_data_sets():
    wmdp, arc = choices.read_choices(WMDP_ROW), choices.read_choices(ARC_ROW)
    assert wmdp.prompt == "Where is it?\nA. Basel\nB. Lyon\nC. Oslo\nD. Turin\nAnswer:" and wmdp.right == 2
    assert arc.prompt == "Where?\nA. Basel\nB. Lyon\nC. Oslo\nAnswer:" and arc.right == 2
    assert choices.read_choices(WMDP_ROW | {"answer": "D"}).right == 3


@pytest.mark.parametrize(
    "change, words",
    [
        ({"question": ""}, "'question' is empty"),
        ({"choices": "Basel"}, "'choices' is no list of 2 to 26 texts"),
        ({"choices": ["Basel"]}, "'choices' is no list of 2 to 26 texts"),
        ({"choices": ["Basel", 3]}, "one of 'choices' is a int, not text"),
        ({"answer": 4}, "'answer' is 4: neither"),
        ({"answer": "E"}, "'answer' is 'E': neither"),
        ({"answer": None}, "'answer' is None: neither"),
    ],
)
def test_rows_that_are_no_multiple_choice_are_refused(change, words):
    with pytest.raises(UserError, match=f"mine, row 2: {words}"):
        choices.read_all([WMDP_ROW, WMDP_ROW | change], "mine")


def test_the_likeliest_letter_counts_and_the_first_of_equal_ones():
    asked = choices.read_all([WMDP_ROW, WMDP_ROW, ARC_ROW], "mine")
    measured = choices.accuracy(asked, [np.array([-3.0, -2, -1, -4]), np.array([-1.0, -1, -1, -1]), np.arange(3.0)])
    assert measured["mean"] == pytest.approx(2 / 3) and measured["rows"] == 3
    assert measured["chance"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 3) / 3)


def test_labels_of_a_letter_are_cut_from_the_whole_text(tiny_checkpoint, small):
    """Whatever the tokenizer makes of the letter: prompt and labels are the whole text."""
    text = greedy_sampler(tiny_checkpoint, small()).text
    prompt = choices.read_choices(WMDP_ROW).prompt
    row = continuation_row(text, prompt, " C")
    assert text.tokenizer.decode(row.tokens).endswith("Answer: C")
    assert text.tokenizer.decode(row.tokens[row.start :]).strip() == "C" and row.tokens[-1] not in text.end_tokens


def test_the_three_from_the_command_line(cli, tiny_folder, data_folder, folders, tmp_path):
    flags = {"model.path": tiny_folder, "data.path": data_folder, "data.forget": "forget20", "data.retain": "retain80"}
    flags |= {"evaluate.benchmarks": "wmdp,mmlu,arc", "evaluate.leak_samples": 0, "evaluate.relearn_rows": 0}
    flags |= {"evaluate.max_new_tokens": 32, "evaluate.retain_rows": 4}
    flags |= {f"evaluate.{name}": folder for name, folder in folders.items()}
    said = cli("evaluate", *(f"--config.{k}={v}" for k, v in flags.items()), f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["wmdp"]) == ["wmdp-bio", "wmdp-chem", "wmdp-cyber"] and result["mmlu"]["mmlu"]["rows"] == 6
    assert list(result["arc"]) == ["arc-easy", "arc-challenge"] and "wmdp-bio" in said.out
    asked = choices.read_all(questions(6), "")
    sampler = greedy_sampler_of(tiny_folder)
    hits = [np.argmax(own) == one.right for one, own in zip(asked, choices.choice_scores(sampler, asked, "again"))]
    assert result["mmlu"]["mmlu"]["mean"] == pytest.approx(np.mean(hits))
    assert result["wmdp"]["wmdp-bio"]["mean"] == pytest.approx(np.mean(hits[:5]))
    assert "wmdp-cyber" in (tmp_path / "run" / "report.html").read_text()


def greedy_sampler_of(folder):
    import pmc_jax

    return greedy_sampler(pmc_jax.load(str(folder)), pmc_jax.config.default())


def test_configs_with_splits_in_folders_and_on_the_hub(folders, tmp_path, monkeypatch):
    assert load_split(str(folders["mmlu"]), "all/test")[0]["subject"] == "astronomy"
    assert has_split(str(folders["mmlu"]), "all/validation") and not has_split(str(folders["mmlu"]), "all/dev")
    (tmp_path / "flat").mkdir()
    write_lines(tmp_path / "flat" / "wmdp-bio.jsonl", questions(2))
    assert load_split(str(tmp_path / "flat"), "wmdp-bio/test") == questions(2)
    with pytest.raises(UserError, match="evaluate.mmlu='none': no such folder"):
        load_split("none", "all/test", "evaluate.mmlu")

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, split: asked.append((*a, split)) or datasets.Dataset.from_list([{"a": 1}])
    )
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path: ["all"])
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda path, config: ["test", "dev"])
    assert load_split("cais/mmlu", "all/test") == [{"a": 1}] and asked == [("cais/mmlu", "all", "test")]
    assert has_split("cais/mmlu", "all/dev")
    assert not has_split("cais/mmlu", "all/train") and not has_split("cais/mmlu", "other/dev")
