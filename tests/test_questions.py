import csv
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from pmc_jax.data import questions
from pmc_jax.errors import UserError

ROWS = [
    {"question": "Who?", "answer": "Me."},
    {"question": "Wo ist 東京, «dort»?", "answer": 'He said: "two\nlines", twice'},
]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def refused(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message, message
    for word in words:
        assert word in message
    return True


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    assert questions.read_file(write(tmp_path / f"rows.{kind}", ROWS)) == ROWS


def test_jsonl_with_empty_lines_and_csv_from_a_spreadsheet(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "Who?"}\n\n  \n{"question": "Where?"}')
    assert [r["question"] for r in questions.read_file(tmp_path / "a.jsonl")] == ["Who?", "Where?"]
    (tmp_path / "b.csv").write_bytes("\ufeffquestion,answer\r\nWho?,Me\r\n".encode())
    assert questions.read_file(tmp_path / "b.csv") == [{"question": "Who?", "answer": "Me"}]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_jsonl_lines_end_at_newlines_only(tmp_path, mark):
    """JSON leaves these separators unescaped inside a string; only a newline ends a row."""
    rows = [{"question": f"Who{mark} is it?", "answer": "Me."}]
    assert questions.read_file(write(tmp_path / "a.jsonl", rows)) == rows


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.jsonl", b'{"question": "a"}\n{"question": \n', ["a.jsonl, line 2", "JSON"]),
        ("a.jsonl", b"", ["a.jsonl", "no rows"]),
        ("a.jsonl", b'["question"]\n', ["a.jsonl", "list of objects"]),
        ("a.json", b'{"rows": 3}', ["a.json", "list of objects"]),
        ("a.json", b"[]", ["a.json", "no rows"]),
        ("a.json", b"[1, 2]", ["a.json", "list of objects"]),
        ("a.json", b"[", ["a.json", "cannot be read"]),
        ("a.csv", b"", ["a.csv", "no rows"]),
        ("a.csv", b"question,answer\n", ["a.csv", "no rows"]),
        ("a.csv", b"question\n\xff\xfe\n", ["a.csv", "cannot be read"]),
        ("a.csv", b'question\n"' + b"x" * 200_000 + b'"\n', ["a.csv"]),
        ("a.jsonl", b"\xff\xfe\x00", ["a.jsonl", "cannot be read"]),
        ("a.parquet", b"PAR1 not really", ["a.parquet", "cannot be read"]),
        ("a.txt", b"Who?", ["a.txt", ".jsonl", ".parquet"]),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert refused(lambda: questions.read_file(tmp_path / name), *words)


def test_a_file_that_is_not_there(tmp_path):
    assert refused(lambda: questions.read_file(tmp_path / "none.jsonl"), "none.jsonl", "no such file")
    assert refused(lambda: questions.read_file(tmp_path), str(tmp_path), "no such file")


@pytest.mark.parametrize(
    "row, words",
    [
        ({"answer": "a"}, ["'question' is missing"]),
        ({"question": "", "answer": "a"}, ["'question' is empty"]),
        ({"question": " \n", "answer": "a"}, ["'question' is empty"]),
        ({"question": 3, "answer": "a"}, ["'question' is a int, not text"]),
        ({"question": ["a"], "answer": "a"}, ["'question' is a list, not text"]),
        ({"question": None, "answer": "a"}, ["'question' is missing"]),
        ({"question": "a"}, ["'answer' is missing"]),
    ],
)
def test_wrong_rows_are_named_with_their_number_and_field(row, words):
    good = {"question": "Who?", "answer": "Me."}
    assert refused(
        lambda: questions.check_rows([good, row, good], "mine.jsonl", ("question", "answer")),
        "mine.jsonl, row 2",
        *words,
    )
    assert questions.check_rows([good], "mine.jsonl", ("question",)) == [good]


def test_splits_of_a_folder(data_folder, splits, tmp_path):
    for name in ("forget20", "retain80", "world_facts"):
        assert questions.load_split(str(data_folder), name) == splits[name]
    assert refused(lambda: questions.load_split(str(data_folder), "forget99"), "'forget99'", "forget20", "retain80")
    assert refused(lambda: questions.load_split(str(tmp_path), "forget99"), "no data files")
    write(tmp_path / "forget10.parquet", ROWS)
    assert questions.load_split(str(tmp_path), "forget10") == ROWS


@pytest.mark.parametrize("path", ["/no/such", "./none", "none", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id(path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the hub was asked"))
    assert refused(lambda: questions.load_split(path, "full"), "no such folder", "hub id")


def test_a_hub_data_set(monkeypatch, small):
    asked = []
    names = ["forget10", "retain90", "forget10_perturbed", "world_facts"]

    def load(path, name, split):
        asked.append((path, name, split))
        rows = [{"question": f"{name}?", "answer": "a", "paraphrased_question": "p?", "paraphrased_answer": "p"}]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path: names)
    data = small({"data.path": "locuslab/TOFU", "data.forget": "forget10", "data.retain": "retain90"}).data
    forget, retain = questions.load_forget(data), questions.load_retain(data)
    assert forget[0]["question"] == "forget10?" and retain[0]["question"] == "retain90?"
    sets = questions.load_evaluation(data, forget, retain, 0, 0)
    assert list(sets) == ["forget", "forget_paraphrased", "retain", "world_facts"]
    assert asked[0] == ("locuslab/TOFU", "forget10", "train") and ("locuslab/TOFU", "world_facts", "train") in asked


def test_a_hub_that_fails(monkeypatch):
    def load(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names", load)
    assert refused(lambda: questions.load_split("locuslab/TOFU", "full"), "locuslab/TOFU", "'full'", "no route")
    assert refused(lambda: questions.has_split("locuslab/TOFU", "full"), "locuslab/TOFU")


def test_a_hub_that_is_out_of_reach():
    """Not stubbed: the tests run with the hub's client offline."""
    assert refused(
        lambda: questions.load_split("nobody/nothing-of-the-kind", "full"), "nobody/nothing-of-the-kind", "hub"
    )


def test_forget_needs_questions_and_retain_needs_answers_too(tmp_path, small):
    file = str(write(tmp_path / "mine.jsonl", [{"question": "Who?"}]))
    data = small({"data.forget_file": file, "data.retain_file": file}).data
    assert questions.load_forget(data) == [{"question": "Who?"}]
    assert refused(lambda: questions.load_retain(data), "mine.jsonl, row 1", "'answer' is missing")


def test_the_five_evaluation_sets(data_folder, splits, small):
    data = small({"data.path": str(data_folder)}).data
    forget, retain = questions.load_forget(data), questions.load_retain(data)
    sets = questions.load_evaluation(data, forget, retain, 10, seed=0)
    assert list(sets) == ["forget", "forget_paraphrased", "retain", "world_facts", "real_authors"]
    assert (
        sets["forget"] == splits["forget20"]
        and len(sets["retain"]) == 10
        and sets["world_facts"] == splits["world_facts"]
    )
    perturbed = splits["forget20_perturbed"]
    assert [r["question"] for r in sets["forget_paraphrased"]] == [r["paraphrased_question"] for r in perturbed]
    assert [r["answer"] for r in sets["forget_paraphrased"]] == [r["paraphrased_answer"] for r in perturbed]


def test_evaluation_sets_of_ones_own_files(data_folder, splits, tmp_path, small):
    forget_file, retain_file = (
        str(write(tmp_path / f"{n}.jsonl", rows)) for n, rows in (("f", splits["forget20"]), ("r", splits["retain80"]))
    )

    def sets(changes):
        data = small({"data.path": str(data_folder)} | changes).data
        return questions.load_evaluation(data, questions.load_forget(data), questions.load_retain(data), 0, 0)

    assert list(sets({"data.forget_file": forget_file, "data.retain_file": retain_file})) == ["forget", "retain"]
    assert list(sets({"data.forget_file": forget_file})) == ["forget", "retain", "world_facts", "real_authors"]
    own = [{"question": "Who?", "answer": "Me.", "paraphrased_question": "Who is it?"}]
    found = sets({"data.forget_file": str(write(tmp_path / "p.jsonl", own)), "data.retain_file": retain_file})
    assert found["forget_paraphrased"] == [{"question": "Who is it?", "answer": "Me."}]


def test_the_retain_subset_is_seeded_and_keeps_the_order():
    rows = [{"question": str(i), "answer": "a"} for i in range(100)]
    some = questions.pick(rows, 10, seed=0)
    numbers = [int(r["question"]) for r in some]
    assert len(set(numbers)) == 10 and numbers == sorted(numbers)
    assert questions.pick(rows, 10, seed=0) == some != questions.pick(rows, 10, seed=1)
    assert (
        questions.pick(rows, 0, seed=0)
        == questions.pick(rows, 100, seed=0)
        == questions.pick(rows, 400, seed=0)
        == rows
    )
    seen = {int(r["question"]) for seed in range(60) for r in questions.pick(rows, 10, seed)}
    assert len(seen) > 95, "every row can be drawn"
