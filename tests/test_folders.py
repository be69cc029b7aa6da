"""What is written replaces only what was written by us, and is there whole or not at all."""

import json
import os
import subprocess

import pytest
from lines import refused

from pmc_jax.errors import UserError
from pmc_jax.report.page import check_page
from pmc_jax.runs.demo import write_data
from pmc_jax.runs.export import adopt_export
from pmc_jax.tracking import files, folders
from pmc_jax.tracking.folders import MANIFEST, FolderWriter
from pmc_jax.tracking.locks import Lock


def fill(folder, **texts):
    writer = FolderWriter(folder)
    writer.begin()
    for name, text in texts.items():
        file = writer.partial / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    writer.finish(last=("config.json",))


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or not any(p.iterdir()))


def everything(folder):
    return {name: (folder / name).read_bytes() for name in names(folder) if (folder / name).is_file()}


def test_a_folder_is_filled_and_filled_again(tmp_path):
    out = tmp_path / "a" / "b"
    fill(out, config_json="{}", part="one", adapter__weights="two")
    assert names(out) == ["adapter/weights", "config.json", "part", MANIFEST]
    fill(out, config_json="[]")
    assert names(out) == ["config.json", MANIFEST] and (out / "config.json").read_text() == "[]"
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", part="one")
    assert names(tmp_path / "empty") == ["part", MANIFEST]


def add_file(out):
    (out / "NOTES.md").write_text("mine")


def add_hidden_folder(out):
    (out / ".git").mkdir()


def add_below(out):
    (out / "adapter" / "mine.txt").write_text("mine")


def edit(out):
    (out / "part").write_text("edited")


def link(out):
    (out / "part").unlink()
    (out / "part").symlink_to(out.parent / "elsewhere")


def lose_manifest(out):
    (out / MANIFEST).unlink()


def break_manifest(out):
    (out / MANIFEST).write_text("{")


def claim_by_name(out):
    """A manifest that names a file of the user's, with another content."""
    (out / "mine").write_text("mine")
    text = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(text.replace('"part": {', '"mine": {"bytes": 1, "sha256": ""}, "part": {'))


@pytest.mark.parametrize(
    "change",
    [add_file, add_hidden_folder, add_below, edit, link, lose_manifest, break_manifest, claim_by_name],
)
def test_what_is_not_ours_is_never_touched(tmp_path, change):
    out = tmp_path / "out"
    fill(out, config_json="{}", part="one", adapter__weights="two")
    (tmp_path / "elsewhere").write_text("one")
    change(out)
    before = everything(tmp_path)
    with pytest.raises(UserError, match="nothing was written"):
        fill(out, config_json="[]")
    assert everything(tmp_path) == before


def test_a_folder_of_somebody_else_is_not_searched(tmp_path, monkeypatch):
    """A home folder, named by mistake, may hold millions of files."""
    (tmp_path / "home" / "photos").mkdir(parents=True)
    (tmp_path / "home" / "photos" / "one.jpg").write_text("mine")
    monkeypatch.setattr(folders, "contents", lambda folder: pytest.fail(f"searched {folder}"))
    with pytest.raises(UserError, match=r"home: holds what pmc-jax did not write: photos; nothing was written"):
        fill(tmp_path / "home", part="one")


@pytest.mark.parametrize("kind", ["a link to an empty folder", "a link that leads nowhere"])
def test_links_in_the_place_of_a_folder(tmp_path, kind):
    if kind == "a link to an empty folder":
        (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    if kind == "a link to an empty folder":
        fill(tmp_path / "out", part="one")
        assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "part").read_text() == "one"
    else:
        with pytest.raises(UserError, match="a link that leads nowhere, stands there; choose another place"):
            fill(tmp_path / "out", part="one")
        assert not (tmp_path / "real").exists()


def test_a_manifest_that_names_files_elsewhere(tmp_path):
    """Nothing beyond the folder is removed, whatever the list says."""
    out = tmp_path / "out"
    fill(out, part="one")
    (tmp_path / "mine").write_text("one")
    listed = json.loads((out / MANIFEST).read_text())
    listed["files"]["../mine"] = listed["files"]["part"]
    (out / MANIFEST).write_text(json.dumps(listed))
    fill(out, part="two")
    assert (tmp_path / "mine").read_text() == "one" and (out / "part").read_text() == "two"


def test_neighbours_with_names_like_ours_stay(tmp_path):
    for name in ("out.partial", "out.tmp", ".out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("mine")
    fill(tmp_path / "out", part="one")
    fill(tmp_path / "out", part="two")
    assert all((tmp_path / name / "thesis").exists() for name in ("out.partial", "out.tmp", ".out"))


def test_a_partial_folder_of_somebody_else(tmp_path):
    (tmp_path / files.PARTIAL).mkdir()
    (tmp_path / files.PARTIAL / "thesis").write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        fill(tmp_path, part="one")
    assert (tmp_path / files.PARTIAL / "thesis").exists()


def test_what_a_stopped_writer_left_is_ours(tmp_path):
    out = tmp_path / "out"
    fill(out, config_json="{}", part="one")
    stopped = FolderWriter(out)
    stopped.begin()
    (stopped.partial / "part").write_text("hal")
    with pytest.raises(UserError, match="another process is writing"):
        FolderWriter(out).begin()
    stopped._lock.release()  # as the end of its process does
    fill(out, part="two")
    assert names(out) == ["part", MANIFEST] and (out / "part").read_text() == "two"


@pytest.mark.parametrize("writes", range(1, 12))
def test_stopped_at_every_step_of_the_exchange(tmp_path, monkeypatch, writes):
    """Without config.json nobody takes it for whole; with it, everything is there; and it can be done again."""
    out, steps = tmp_path / "out", iter(range(1, 99))
    fill(out, config_json="{}", part="one", more="old")

    class Stopped(Exception):
        pass

    def counted(name, original):
        def call(*arguments, **options):
            if next(steps) == writes:
                raise Stopped(name)
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (folders, "remove"), (folders, "sync_file"), (os, "fsync")):
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        try:
            fill(out, config_json="[]", part="two")
        except Stopped:
            pass
    if (out / "config.json").exists():
        new = (out / "config.json").read_text() == "[]"
        assert (out / "part").read_text() == ("two" if new else "one") and (out / "more").exists() != new
    fill(out, config_json="[3]", part="three") if not FolderWriter(out).partial.exists() else None


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill(out, config_json="{}", part="one")
    before = everything(out)
    writer = FolderWriter(out)
    writer.begin()
    (writer.partial / "part").write_text("two")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "sync_file", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        writer.finish()
    writer.abandon()
    assert everything(out) == before


def test_a_file_is_written_beside_its_place_and_nothing_else_is_touched(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    for name in ("result.partial", "result.json.partial"):
        (tmp_path / name).write_text("mine")
    files.write_json(file, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda opened: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"result.json: cannot be written: No space left on device; make room"):
        files.write_json(file, {"a": 2})
    assert files.read_json(file) == {"a": 1}
    assert names(tmp_path) == ["result.json", "result.json.partial", "result.partial"]


def test_pages_replace_pages_only(tmp_path):
    file = tmp_path / "page.html"
    check_page(file)
    for ours in ("", '<html>\n<meta name="generator" content="pmc-jax">', "<title>Unlearning report: a</title>"):
        file.write_text(ours)
        check_page(file)
    for text in ("my notes", "<html><title>Mine</title>"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"page.html: is no page that pmc-jax wrote"):
            check_page(file)
    for place in (tmp_path, "/dev/null"):
        with pytest.raises(UserError, match="is no file"):
            check_page(files.Path(place))


def test_a_report_over_a_file_of_the_users(make_run, cli, tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    assert refused(cli("report", make_run("first"), f"--output={notes}"), "notes.html", "no page")
    assert notes.read_text() == "mine"


def test_the_demo_leaves_a_data_folder_that_is_not_its_own(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"mine.jsonl"):
        write_data(data, seed=0)
    assert names(tmp_path) == ["data/mine.jsonl"]
    write_data(tmp_path / "new", seed=0)
    before = everything(tmp_path / "new")
    write_data(tmp_path / "new", seed=1)
    assert everything(tmp_path / "new") == before and "full.jsonl" in before


def test_an_export_of_an_earlier_version_is_taken_over_in_a_run_only(tmp_path):
    for name in ("config.json", "model-00001-of-00002.safetensors", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_text("old")
    with pytest.raises(UserError):
        fill(tmp_path, part="one")
    adopt_export(tmp_path)
    fill(tmp_path, part="one")
    assert names(tmp_path) == ["part", MANIFEST]
    (tmp_path / MANIFEST).unlink()
    adopt_export(tmp_path)
    assert not (tmp_path / MANIFEST).exists(), "`part` is no name of an export"


def test_a_lock_is_held_by_one(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.hold() and not second.hold()
    first.release()
    assert second.hold()
    second.release()


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"])
def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch, capsys, code):
    import errno

    from pmc_jax.tracking import locks

    def flock(*_):
        raise OSError(getattr(errno, code), "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    lock = Lock(tmp_path / "lock")
    assert lock.hold() and "has no locks" in capsys.readouterr().err
    lock.release()


def test_make_clean_leaves_runs():
    from tiny import ROOT

    said = subprocess.run(["make", "-n", "clean"], cwd=ROOT, capture_output=True, text=True)
    assert "rm -rf" in said.stdout and " runs" not in said.stdout
