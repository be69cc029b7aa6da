"""Files of other people are read by what is in them, whatever they are called."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import socket
import zipfile
from pathlib import Path

import datasets
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies

from pmc_jax.data import questions
from pmc_jax.data.files import decode, read_file
from pmc_jax.data.parse import parse_text
from pmc_jax.data.splits import find_split, has_split, load_split
from pmc_jax.errors import UserError

ROWS = [
    {"question": "Who?", "answer": "Me."},
    {"question": "Wo ist 東京, «dort»; or\there?", "answer": 'He said: "two\nlines" | twice'},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=1)


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def table(delimiter=",", rows=ROWS, **options):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def zipped(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, LINES)
    return out.getvalue()


def arrow(write):
    out = io.BytesIO()
    write(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


def stream(table, out):
    with pyarrow.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


CONTENTS = {
    "json lines": LINES.encode(),
    "json lines without a last newline": LINES.rstrip().encode(),
    "json lines of Windows": LINES.replace("\n", "\r\n").encode(),
    "json lines of an old Mac": LINES.replace("\n", "\r").encode(),
    "json lines with empty lines": ("\n \n" + LINES.replace("\n", "\n\n")).encode(),
    "json lines with a byte order mark": b"\xef\xbb\xbf" + LINES.encode(),
    "objects over several lines": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "a list": ARRAY.encode(),
    "a list on one line": json.dumps(ROWS).encode(),
    "an object with one list": json.dumps({"version": "1", "data": ROWS}).encode(),
    "an object with a split": json.dumps({"train": ROWS}, indent=2).encode(),
    "an object of columns": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
    "a frame of pandas": json.dumps(
        {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}
    ).encode(),
    "a frame of pandas by its rows": json.dumps({str(i): row for i, row in enumerate(ROWS)}).encode(),
    "an object in an object": json.dumps({"data": {"train": ROWS}}).encode(),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + ARRAY.encode("utf-16-be"),
    "UTF-32": LINES.encode("utf-32"),
    "a table": table().encode(),
    "a table with semicolons": table(";").encode(),
    "a table with tabs": table("\t").encode(),
    "a table with bars": table("|").encode(),
    "a table of a spreadsheet": ("sep=;\r\n" + table(";", lineterminator="\r\n")).encode("utf-8-sig"),
    "a table all in quotes": table(quoting=csv.QUOTE_ALL).encode(),
    "a table of an old Mac": table()
    .replace("two\nlines", "two\rlines")
    .replace("\r\n", "\r")
    .encode()
    .replace(b"two\rlines", b"two\nlines"),
    "a table of DOS": table().encode() + b"\x1a",
    "a table with empty rows and cells": (table() + ",,,\r\n,\r\n").encode(),
    "parquet": arrow(pyarrow.parquet.write_table),
    "arrow": arrow(lambda t, out: pyarrow.feather.write_feather(t, out)),
    "an arrow stream": arrow(stream),
    "gzip": gzip.compress(LINES.encode()),
    "bzip2": bz2.compress(ARRAY.encode()),
    "xz": lzma.compress(table().encode()),
    "zip": zipped("rows.jsonl", "__MACOSX/._rows.jsonl"),
    "parquet in gzip": gzip.compress(arrow(pyarrow.parquet.write_table)),
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "rows", "rows.txt"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_in_a_file_counts_and_not_its_name(tmp_path, content, name):
    (tmp_path / name).write_bytes(CONTENTS[content])
    assert read_file(tmp_path / name) == ROWS


def test_a_table_of_markdown(tmp_path):
    (tmp_path / "rows.md").write_text("| question | answer |\n|:--|--:|\n| Who? | Me. |\n| Where? | Here. |\n")
    assert read_file(tmp_path / "rows.md") == [
        {"question": "Who?", "answer": "Me."},
        {"question": "Where?", "answer": "Here."},
    ]


@pytest.mark.parametrize("text", ["NaN", "nan", "#N/A", "<NA>"])
def test_what_programs_write_for_no_value_is_none(tmp_path, small, text):
    (tmp_path / "f.csv").write_text(f"question,answer\nWho?,{text}\nWhere?,Nan lives here.\n")
    (tmp_path / "f.json").write_text('[{"question": "Who?", "answer": NaN}, {"question": "Where?", "answer": "nan"}]')
    for name, answer in (("f.csv", "Nan lives here."), ("f.json", "nan")):
        rows = questions.load_forget(small({"data.forget_file": str(tmp_path / name)}).data)
        assert not rows[0]["answer"] and rows[1]["answer"] == answer


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_pipe_is_no_file(tmp_path, kind):
    """It would hang, or be empty at the second look."""
    place = tmp_path / "rows.jsonl"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place = "/dev/zero"
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            stack.enter_context(contextlib.chdir(tmp_path))  # a socket's path is short
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind("rows.jsonl")
        with pytest.raises(UserError, match="a pipe or a device.*save it as a file first"):
            read_file(place)


def test_a_file_that_goes_between_the_look_and_the_reading(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text(LINES)
    read = Path.read_bytes

    def go(path):
        os.unlink(file)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", go)
    with pytest.raises(UserError, match=r"rows\.jsonl: no such file$"):
        read_file(file)


def test_one_object_is_one_row(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(ROWS[1], indent=1))
    assert read_file(tmp_path / "one.json") == [ROWS[1]]


@pytest.mark.parametrize("layout", ["shards", "data", "folder", "saved", "packed"])
def test_layouts_of_a_folder(tmp_path, layout):
    first, second = LINES.splitlines()
    for name in ("forget10", "forget10_perturbed"):
        if layout in ("shards", "data"):
            folder = tmp_path / "data" if layout == "data" else tmp_path
            folder.mkdir(exist_ok=True)
            (folder / f"{name}-00001-of-00002.jsonl").write_text(second)
            (folder / f"{name}-00000-of-00002.jsonl").write_text(first)
        elif layout == "folder":
            (tmp_path / name).mkdir()
            (tmp_path / name / "train-00000-of-00001.json").write_text(LINES)
        elif layout == "saved":
            datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / name), num_shards=2)
        else:
            (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(LINES.encode()))
    assert load_split(str(tmp_path), "forget10") == ROWS and len(find_split(tmp_path, "forget10")) in (1, 2)
    assert has_split(str(tmp_path), "forget10_perturbed") and not has_split(str(tmp_path), "retain90")
    with pytest.raises(UserError, match=r"no split 'retain90'; it has: forget10, forget10_perturbed$"):
        load_split(str(tmp_path), "retain90")


def test_the_data_of_tofu_as_it_lies_on_the_hub(shared, small, tmp_path):
    """SPLIT.json, one JSON object a line; and its sets do not contradict each other."""
    for file in shared("tofu-mini").glob("*.jsonl"):
        (tmp_path / f"{file.stem}.json").write_bytes(file.read_bytes())
    data = small({"data.path": str(tmp_path), "data.forget": "forget10", "data.retain": "retain90"}).data
    forget, retain = questions.load_forget(data), questions.load_retain(data)
    sets = questions.load_evaluation(data, forget, retain, 0, 0)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget": 40,
        "forget_paraphrased": 40,
        "retain": 360,
        "world_facts": 117,
        "real_authors": 100,
    }


@pytest.mark.parametrize(
    "forget, retain", [("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90")]
)
def test_the_sets_of_tofu_do_not_contradict_each_other(shared, small, forget, retain):
    data = small({"data.path": str(shared("tofu")), "data.forget": forget, "data.retain": retain}).data
    rows = questions.load_forget(data), questions.load_retain(data)
    assert len(questions.load_evaluation(data, *rows, 0, 0)) == 5
    assert questions.check_sets(data, rows[0], {"retain": rows[1]}) == ""


COLUMNS = [
    ({}, {"Question": "Who?", " ANSWER ": "Me."}),
    ({"data.question_column": "prompt", "data.answer_column": "response"}, {"prompt": "Who?", "response": "Me."}),
    ({"data.question_column": "input", "data.answer_column": "output"}, {"Input": "Who?", "Output": "Me.", "id": "3"}),
    ({"data.question_column": "qa.question", "data.answer_column": "qa.a"}, {"qa": {"question": "Who?", "a": "Me."}}),
]


@pytest.mark.parametrize("changes, row", COLUMNS)
def test_columns_of_other_names(tmp_path, small, changes, row):
    (tmp_path / "mine.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    file = str(tmp_path / "mine.jsonl")
    data = small({"data.forget_file": file, "data.retain_file": file} | changes).data
    for rows in (questions.load_forget(data), questions.load_retain(data)):
        assert (rows[0]["question"], rows[0]["answer"]) == ("Who?", "Me.")


TEXT = strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
TABLE = strategies.lists(strategies.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=4)


@settings(max_examples=60)
@given(TABLE, strategies.sampled_from([",", ";", "\t", "|"]), strategies.booleans())
def test_any_rows_come_back_from_every_kind_of_text(rows, delimiter, ascii_only):
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    whole = json.dumps(rows, ensure_ascii=ascii_only, indent=1)
    assert parse_text(lines, "a") == parse_text(whole, "a") == rows
    assert parse_text(table(delimiter, rows), "a") == rows
    assert decode(lines.encode("utf-16"), "a") == lines


@settings(max_examples=150)
@given(strategies.binary(max_size=60) | strategies.text(max_size=60).map(lambda t: t.encode(errors="replace")))
def test_any_bytes_are_rows_or_one_line_of_refusal(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(content)
    try:
        rows = read_file(file)
    except UserError as error:
        assert len(str(error)) <= 300 and str(error).isprintable() and "any" in str(error)
    else:
        assert rows and all(isinstance(row, dict) for row in rows)
