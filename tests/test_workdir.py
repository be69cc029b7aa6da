"""A run's folder: whose it is, and what a kill may leave in it."""

import json

import pytest
from lines import refused

from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.tracking.files import PARTIAL, read_lines, write_json, write_lines
from pmc_jax.tracking.workdir import Started, Workdir, data_hash

SETTINGS, DATA = {"seed": 0, "train.epochs": 3}, {"forget": "abc"}


@pytest.fixture
def work(tmp_path):
    work = Workdir(str(tmp_path / "run"))
    work.check(Started("unlearn", SETTINGS, DATA, {}))
    assert not work.path.exists(), "checking writes nothing"
    work.claim(Started("unlearn", SETTINGS, DATA, {}))
    return work


def test_a_run_goes_on_on_another_mesh(tmp_path):
    work = Workdir(str(tmp_path / "run"))
    work.claim(Started("unlearn", SETTINGS | {"mesh.data": 2, "mesh.model": 4}, DATA, {}))
    work.check(Started("unlearn", SETTINGS | {"mesh.data": -1, "mesh.model": 1}, DATA, {}))
    with pytest.raises(UserError, match="undo: seed: 0 there, 1 now$"):
        work.check(Started("unlearn", SETTINGS | {"mesh.data": -1, "mesh.model": 1, "seed": 1}, DATA, {}))


def test_the_same_run_goes_on_and_its_settings_stay(work):
    before = (work.path / "config.json").read_bytes()
    work.check(Started("unlearn", SETTINGS, DATA, {}))
    work.claim(Started("unlearn", SETTINGS, DATA, {}))
    assert (work.path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("verb", "settings", "data", "words"),
    [
        ("finetune", SETTINGS, DATA, ["verb: 'unlearn' there, 'finetune' now"]),
        ("unlearn", SETTINGS | {"seed": 1}, DATA, ["seed: 0 there, 1 now"]),
        (
            "unlearn",
            SETTINGS | {"seed": 1, "train.epochs": 9},
            DATA,
            ["seed: 0 there, 1 now", "train.epochs: 3 there, 9 now"],
        ),
        ("unlearn", SETTINGS, {"forget": "xyz"}, ["forget: 'abc' there, 'xyz' now"]),
        ("unlearn", {"seed": 0}, DATA, ["train.epochs: 3 there, None now"]),
    ],
)
def test_another_run_is_refused_naming_what_differs(work, verb, settings, data, words):
    with pytest.raises(UserError) as caught:
        work.check(Started(verb, settings, data, {}))
    assert all(word in str(caught.value) for word in words)


RUN = '{"verb": "unlearn", "settings": %s, "data": {}}'


@pytest.mark.parametrize(
    "content",
    [
        '{"architectures": ["LlamaForCausalLM"]}',
        "[1, 2]",
        "{cut sho",
        RUN % "[1]",
        RUN % "null",
        RUN % '{"model.path": 3}',
        '{"verb": "unlearn", "settings": {}, "data": null}',
        '{"verb": "unlearn", "settings": {}, "data": {}, "beside": 3}',
        '{"verb": "unlearn", "settings": {}, "data": {}, "checkpoints": [3]}',
    ],
)
def test_a_config_json_of_something_else(tmp_path, content):
    """As when --workdir is given the checkpoint's folder."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json.*(not of a run|is damaged)"):
        Workdir(str(tmp_path)).check(Started("unlearn", SETTINGS, DATA, {}))


def test_a_checkpoint_folder_as_workdir_on_the_command_line(cli, tiny_folder, data_folder):
    flags = [f"--config.model.path={tiny_folder}", f"--config.data.path={data_folder}", f"--workdir={tiny_folder}"]
    flags += ["--config.data.forget=forget20", "--config.data.retain=retain80", "--config.train.batch_size=4"]
    before = sorted(tiny_folder.iterdir())
    for done in (cli("unlearn", *flags), cli("export", f"--workdir={tiny_folder}")):
        assert refused(done, "not of a run")
    assert sorted(tiny_folder.iterdir()) == before


def test_killed_before_the_settings_were_written(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / f"{PARTIAL}-0123").write_text("{")
    work = Workdir(str(run))
    work.check(Started("unlearn", SETTINGS, DATA, {}))
    work.claim(Started("unlearn", SETTINGS, DATA, {}))
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "lock"] and run.stat().st_mode & 0o777 == 0o700


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        work = Workdir(str(path))
        with pytest.raises(UserError, match=str(path)):
            work.check(Started("unlearn", SETTINGS, DATA, {}))
            work.claim(Started("unlearn", SETTINGS, DATA, {}))


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    file = tmp_path / "lines.jsonl"
    assert read_lines(file) == []
    file.write_text('{"round": 0}\n{"round": 1}\n{"rou')
    assert read_lines(file) == [{"round": 0}, {"round": 1}]
    file.write_text('{"rou')
    assert read_lines(file) == []


def test_rounds_that_are_run_again_are_dropped(work):
    work.add_metrics([{"kind": "update", "round": 0}, {"kind": "round", "round": 0}, {"kind": "update", "round": 1}])
    with (work.path / "metrics.jsonl").open("a") as out:
        out.write('{"kind": "rou')
    work.drop_metrics_from(1)
    work.add_metrics([{"kind": "round", "round": 1}])
    assert [m["round"] for m in read_lines(work.path / "metrics.jsonl")] == [0, 0, 1]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"])
def test_answers_with_odd_line_separators_come_back(tmp_path, mark):
    rows = [{"answer": f"a{mark}b"}, {"answer": "c"}]
    write_lines(tmp_path / "answers.jsonl", rows)
    assert read_lines(tmp_path / "answers.jsonl") == rows


def test_files_are_there_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "result.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"a": object()})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 1}


def test_the_hash_of_data_is_of_its_content():
    rows = [{"question": "Who?", "answer": "ü"}]
    assert data_hash(rows) == data_hash([{"answer": "ü", "question": "Who?"}]) and len(data_hash(rows)) == 64
    assert data_hash(rows) != data_hash([{"question": "Who?", "answer": "u"}]) != data_hash([])


def test_a_run_of_an_earlier_version_goes_on(work):
    """Its settings have old names, and newer ones were not there yet: those count at their defaults."""
    now = settings.to_flat(settings.default())
    earlier = {name: value for name, value in now.items() if name not in settings.RENAMED.values()}
    earlier |= {old: now[new] for old, new in settings.RENAMED.items()}
    del earlier["lora.rank"]
    write_json(work.path / "config.json", {"verb": "unlearn", "settings": earlier, "data": DATA})
    work.check(Started("unlearn", now, DATA, {}))
    with pytest.raises(UserError, match=r"lora.rank: 0 there, 4 now; pmc.prune_candidates: True there, False now"):
        work.check(Started("unlearn", now | {"lora.rank": 4, "pmc.prune_candidates": False}, DATA, {}))
