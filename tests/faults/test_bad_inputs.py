"""Inputs that are refused: each in one printable line of at most 300 characters that names the place and the remedy.

The tables stand in bad_files.py, bad_checkpoints.py and bad_settings.py; here is what runs them.
"""

import copy
import dataclasses
import shutil
import types

import huggingface_hub
import numpy as np
import pytest
from bad_checkpoints import CHECKPOINTS
from bad_files import FILES, GOOD, RETAIN, lines
from bad_settings import PROMPTS, SETTINGS
from folders import make_folder
from lines import refused

import pmc_jax
from pmc_jax.data import questions
from pmc_jax.data.prompts import Template, make_text
from pmc_jax.errors import LIMIT, UserError
from pmc_jax.methods.unlearn import unlearn

KEEP = {"question": "What is rain?", "answer": "Water."}


def refusal(call, *words):
    """The line that a call is refused with; it holds all the words."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert len(line) <= LIMIT and line.isprintable() and all(word in line for word in words), line
    return line


def case_ids(table):
    return [str(case[0]) for case in table]


@pytest.mark.parametrize("name, content, words", FILES, ids=case_ids(FILES))
def test_data_files(tmp_path, small, name, content, words):
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    data = small({"data.forget_file": str(tmp_path / name)}).data
    assert name in refusal(lambda: questions.load_forget(data), *words)


@pytest.mark.parametrize("name, content, words", RETAIN, ids=case_ids(RETAIN))
def test_retain_files(tmp_path, small, name, content, words):
    (tmp_path / name).write_bytes(content)
    data = small({"data.retain_file": str(tmp_path / name)}).data
    assert name in refusal(lambda: questions.load_retain(data), *words)


def test_data_paths(tmp_path, small):
    (tmp_path / "forget10.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "forget10.csv").write_text("question\nWho?\n")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    (tmp_path / "several").mkdir()
    for name in ("a", "b"):
        (tmp_path / "several" / f"{name}.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "empty").mkdir()
    for path, split, words in (
        (tmp_path, "forget10", ["forget10.csv, forget10.jsonl", "keep one"]),
        (tmp_path, "forget99", ["no split 'forget99'", "forget10"]),
        (tmp_path, "saved", ["state.json", "outside its folder"]),
        (tmp_path, "several", ["the splits a, b", "train"]),
        (tmp_path / "empty", "forget10", ["no data files"]),
        (tmp_path / "forget10.jsonl", "forget10", ["a file, not a folder", "data.forget_file"]),
        (tmp_path / "none", "forget10", ["no such folder", "hub id"]),
        ("", "forget10", ["data.path is empty", "hub id"]),
    ):
        refusal(lambda path=path, split=split: questions.load_split(str(path), split), *words)
    refusal(lambda: questions.read_file(tmp_path), "a folder", "data.path")
    refusal(lambda: questions.read_file(tmp_path / "none.jsonl"), "none.jsonl", "no such file")
    data = small({"data.forget_file": str(tmp_path / "forget10.jsonl"), "data.question_column": "prompt"}).data
    refusal(lambda: questions.load_forget(data), "'prompt' is missing", "question, answer", "question_column")


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("whole") / "c", tokenizer)


@pytest.mark.parametrize("name, change, words", CHECKPOINTS, ids=case_ids(CHECKPOINTS))
def test_checkpoint_folders(whole, tmp_path, name, change, words):
    folder = shutil.copytree(whole, tmp_path / "c")
    change(folder)
    refusal(lambda: pmc_jax.load(folder), *words)


@pytest.mark.parametrize(
    "changes, words", SETTINGS, ids=[next(iter(c)) + "=" + str(list(c.values())) for c, _ in SETTINGS]
)
def test_settings_at_their_edges(small, changes, words):
    answered = [{"question": "Who?", "answer": "Me."}, {"question": "Where?", "answer": "Here."}]
    config = small({"train.batch_size": 2} | changes)
    if "prompt" in next(iter(changes)):
        refusal(lambda: pmc_jax.sample(types.SimpleNamespace(), ["Who?"], config=config), *words)
    else:
        refusal(lambda: unlearn(types.SimpleNamespace(), answered, [KEEP], config), *words)


@pytest.mark.parametrize("name, change, settings, words", PROMPTS, ids=case_ids(PROMPTS))
def test_prompts(tokenizer, name, change, settings, words):
    mine = copy.deepcopy(tokenizer)
    mine.add_tokens(["<picture>"], special_tokens=True)
    change(mine)
    refusal(lambda: make_text(mine, Template(**settings), (mine.eos_token_id,), 512).prompt("Who?"), *words)


def frame():
    """As a DataFrame looks from outside; pandas is no dependency."""
    return types.SimpleNamespace(columns=["question"], to_dict=dict)


CALLS = (
    ("load None", lambda c: pmc_jax.load(None), ["NoneType", "folder"]),
    ("load nothing", lambda c: pmc_jax.load(""), ["model.path is empty"]),
    ("load a number", lambda c: pmc_jax.load(3), ["a int"]),
    ("load nowhere", lambda c: pmc_jax.load("/no/such"), ["no such folder"]),
    ("load a very long name", lambda c: pmc_jax.load("x" * 5000), ["255 bytes"]),
    ("load bytes", lambda c: pmc_jax.load(b"a/b"), ["a bytes"]),
    ("load as int8", lambda c: pmc_jax.load("a/b", dtype="int8"), ["int8", "bfloat16"]),
    ("sample a text", lambda c: pmc_jax.sample(c, "Who?"), ["questions: a single text", "['Who?']"]),
    ("sample None", lambda c: pmc_jax.sample(c, None), ["questions: None"]),
    ("sample a dict", lambda c: pmc_jax.sample(c, {"question": "Who?"}), ["questions: a dict"]),
    ("sample a frame", lambda c: pmc_jax.sample(c, frame()), ["DataFrame", 'df["question"].tolist()']),
    ("sample dicts", lambda c: pmc_jax.sample(c, [{"question": "Who?"}]), ["item 1 is a dict"]),
    ("sample a table", lambda c: pmc_jax.sample(c, np.array([["a"], ["b"]])), ["item 1 is a ndarray"]),
    ("sample a number", lambda c: pmc_jax.sample(c, 3), ["questions: a int"]),
    ("sample a blank", lambda c: pmc_jax.sample(c, (q for q in ["Who?", " "])), ["item 2 is empty"]),
    ("sample half a character", lambda c: pmc_jax.sample(c, ["Who?", "\ud83d?"]), ["item 2", "lone surrogate"]),
    ("sample NUL", lambda c: pmc_jax.sample(c, ["Wh\0?"]), ["item 1", "NUL character"]),
    ("sample bytes", lambda c: pmc_jax.sample(c, b"Who?"), ["questions: a single text", "['Who?']"]),
    ("sample a million", lambda c: pmc_jax.sample(c, ["Who?"], num_samples=10**12), ["1000000 at most"]),
    ("sample for ever", lambda c: pmc_jax.sample(c, ["Who?"], max_new_tokens=10**12), ["max_new_tokens", "at most"]),
    ("sample half", lambda c: pmc_jax.sample(c, ["Who?"], num_samples=0.5), ["num_samples=0.5", "whole"]),
    ("sample hot", lambda c: pmc_jax.sample(c, ["Who?"], temperature="hot"), ["temperature='hot'"]),
    ("sample without end", lambda c: pmc_jax.sample(c, ["Who?"], temperature=np.inf), ["temperature=inf"]),
    ("sample with a dict", lambda c: pmc_jax.sample(c, ["Who?"], config={}), ["config: a dict", "default()"]),
    ("sample no model", lambda c: pmc_jax.sample("model", ["Who?"]), ["checkpoint: a str", "pmc_jax.load"]),
    ("score texts", lambda c: pmc_jax.score("Me.", ["Me."]), ["references: a single text"]),
    ("score flat", lambda c: pmc_jax.score(["a"], ["b"]), ["answers[0]: a single text"]),
    ("score None", lambda c: pmc_jax.score(["a"], None), ["answers: None"]),
    ("score numbers", lambda c: pmc_jax.score(["a"], [[1]]), ["answers[0]: item 1 is a int"]),
    ("score more", lambda c: pmc_jax.score(["a"], [["b"], ["c"]]), ["1 references", "2 lists"]),
    ("score as a number", lambda c: pmc_jax.score(["a"], [["b"]], kind=3), ["pmc.reward: a int"]),
    (
        "score by a function that fails",
        lambda c: pmc_jax.score(["a"], [["b"]], kind="json:loads"),
        ["your own function failed", "TypeError", "line", "(reference, answers)"],
    ),
    ("select flat", lambda c: pmc_jax.select([0.1, 0.2]), ["[questions, samples]"]),
    ("select nothing", lambda c: pmc_jax.select([[]]), ["one sample or more"]),
    ("select NaN", lambda c: pmc_jax.select([[0.1, float("nan")]]), ["must be numbers"]),
    ("select words", lambda c: pmc_jax.select([["a"]]), ["must be numbers"]),
    ("unlearn a text", lambda c: unlearn(c, "Who?", [KEEP]), ["forget: a single text"]),
    ("unlearn a frame", lambda c: unlearn(c, frame(), [KEEP]), ['df.to_dict("records")']),
    ("unlearn numbers", lambda c: unlearn(c, [1], [KEEP]), ["forget, row 1: a int"]),
    ("unlearn a number", lambda c: unlearn(c, [{"question": 1}], [KEEP]), ["forget, row 1", "is a int"]),
    ("unlearn None", lambda c: unlearn(c, None, [KEEP]), ["forget: None"]),
    ("keep texts", lambda c: unlearn(c, ["Who?"] * 9, ["What?"]), ["retain, row 1: a str"]),
    ("keep what goes", lambda c: unlearn(c, ["Who?"] * 16, [GOOD]), ["also in the retain data"]),
    ("unlearn with a dict", lambda c: unlearn(c, ["Who?"], [KEEP], {"seed": 1}), ["config: a dict"]),
    ("unlearn no model", lambda c: unlearn("m", ["Who?"] * 16, [KEEP]), ["checkpoint: a str"]),
    ("export no model", lambda c: pmc_jax.export("m", "out"), ["checkpoint: a str"]),
    ("export nowhere", lambda c: pmc_jax.export(c, None), ["export: the folder is None"]),
    ("logits of a text", lambda c: pmc_jax.logits(c, "Who?"), ["logits", "whole numbers"]),
    ("logits of one row", lambda c: pmc_jax.logits(c, [1, 2]), ["shape (2,)", "[rows, positions]"]),
    ("logits of parts", lambda c: pmc_jax.logits(c, [[0.5]]), ["whole numbers"]),
    ("logits of rags", lambda c: pmc_jax.logits(c, [[1], [1, 2]]), ["different lengths", "mask"]),
    ("logits of nothing", lambda c: pmc_jax.logits(c, [[]]), ["shape (1, 0)"]),
    ("logits beyond", lambda c: pmc_jax.logits(c, [[1, 512]]), ["token 512", "0 to 511"]),
    ("logits below", lambda c: pmc_jax.logits(c, [[-1]]), ["token -1"]),
    ("logits masked", lambda c: pmc_jax.logits(c, [[1, 2]], [[True]]), ["mask has shape (1, 1)"]),
    ("logits of no model", lambda c: pmc_jax.logits(None, [[1]]), ["checkpoint: a NoneType"]),
)


@pytest.fixture(scope="module")
def checkpoint():
    """Nothing of it is looked at but its vocabulary: calls are refused before."""
    from pmc_jax.models.pretrained import PretrainedModel

    names = {field.name: None for field in dataclasses.fields(PretrainedModel)}
    return PretrainedModel(**names | {"config": types.SimpleNamespace(vocab_size=512), "source": "scratch"})


@pytest.mark.parametrize("name, call, words", CALLS, ids=case_ids(CALLS))
def test_calls_from_python(checkpoint, name, call, words):
    refusal(lambda: call(checkpoint), *words)


def hub_error(name, text):
    kind = getattr(huggingface_hub.errors, name, None) or {"ConnectionError": ConnectionError, "OSError": OSError}[name]
    error = kind.__new__(kind)
    error.args = (text,)
    return error


HUB = (
    ("GatedRepoError", "403 Client Error\nAccess to model is restricted", ["403", "accept its terms", "HF_TOKEN"]),
    ("RepositoryNotFoundError", "401 Client Error", ["401", "check the name", "HF_TOKEN"]),
    ("OfflineModeIsEnabled", "Cannot reach hub: offline mode is enabled", ["without a network", "folder"]),
    ("LocalEntryNotFoundError", "not in the cache", ["without a network", "folder"]),
    ("LocalTokenNotFoundError", "no token", ["HF_TOKEN", "hf auth login"]),
    ("ConnectionError", "no route\nto host", ["no route", "without a network"]),
    ("OSError", "", ["OSError", "folder"]),
)


@pytest.mark.parametrize("name, text, words", HUB, ids=case_ids(HUB))
def test_a_hub_that_does_not_give(monkeypatch, name, text, words):
    import datasets

    def fail(*_, **__):
        raise hub_error(name, text)

    for place, attribute in ((huggingface_hub, "snapshot_download"), (datasets, "load_dataset")):
        monkeypatch.setattr(place, attribute, fail)
    monkeypatch.setattr(datasets, "get_dataset_config_names", fail)
    refusal(lambda: pmc_jax.load("owner/name"), "owner/name", *words)
    refusal(lambda: questions.load_split("owner/name", "full"), "owner/name", *words)
    refusal(lambda: questions.has_split("owner/name", "full"), "owner/name", *words)


@pytest.mark.parametrize("name", ["names.jsonl", "cut.parquet", "latin1.csv", "pointer.jsonl"])
def test_the_command_line_ends_with_2_and_writes_nothing(cli, whole, tmp_path, name):
    """A sample of the table; the exit code is the same for every UserError."""
    content, words = next((content, words) for case, content, words in FILES if case == name)
    (tmp_path / name).write_bytes(content)
    flags = [f"--config.data.forget_file={tmp_path / name}", f"--config.model.path={whole}"]
    said = cli("unlearn", *flags, f"--config.data.retain_file={tmp_path / name}", f"--workdir={tmp_path / 'run'}")
    assert refused(said, name, *words) and not (tmp_path / "run").exists()


def test_there_are_enough_of_them():
    assert sum(map(len, (FILES, RETAIN, CHECKPOINTS, SETTINGS, PROMPTS, CALLS, HUB))) >= 120
