"""A comparison: methods x seeds x a grid, interrupted, shared out, chosen from; its table, figures and page."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from lines import refused
from tiny import SMALL

from pmc_jax import config as settings
from pmc_jax.compare.choose import Tried, choose, pareto_front, spread
from pmc_jax.compare.measures import ROBUSTNESS, fall
from pmc_jax.compare.tables import Table, markdown, narrow
from pmc_jax.data.cut import cut
from pmc_jax.methods.settings import read_objective
from pmc_jax.runs import cells, comparison
from pmc_jax.runs.compare import run_compare, share_of
from pmc_jax.runs.comparison import Share
from pmc_jax.runs.presets import load_preset
from pmc_jax.runs.unlearn import load_data
from pmc_jax.settings.comparison import Comparison, Row, with_comparison
from pmc_jax.tracking.recorder import RoundRecorder
from pmc_jax.training.objectives import hyperparameters

GRID = {"train.learning_rate": 1e-3}, {"train.learning_rate": 4e-3}
ROWS = Row("gd", GRID, "rivals:gradient_difference"), Row("pmc", GRID)
MEASURE = {"evaluate.leak_samples": 2, "evaluate.relearn_updates": 1, "train.learning_rate": 1e-3}
QUICK = {
    "train.epochs": 2,
    "evaluate.retain_rows": 4,
    "evaluate.max_new_tokens": 16,
    "sample.num_samples": 2,
    "sample.max_new_tokens": 16,
}


@pytest.fixture
def config(tiny_folder, data_folder):
    """config(of, measure, **section) -> the settings of a comparison on the tiny checkpoint."""

    def make(of=ROWS, measure=None, **section):
        held = {name: value for name, value in SMALL.items() if name != "train.learning_rate"}
        everywhere = held | QUICK | {"model.path": str(tiny_folder), "data.path": str(data_folder)}
        values = {"seeds": "0,1", "tuning_seeds": 1} | section
        return with_comparison(settings.changed(settings.default(), everywhere), Comparison(of, measure), **values)

    return make


def without_seconds(results):
    """The results, less what depends on the clock."""
    for row in results["rows"]:
        for point in row["points"]:
            point["measures"] = {k: v for k, v in point["measures"].items() if "seconds" not in k}
    return results


def test_a_comparison_stopped_and_shared_out_gives_the_table_of_one_in_one_go(config, tmp_path, monkeypatch):
    """And what was done before the stop is not done again."""
    whole = run_compare(config(), str(tmp_path / "whole"))
    begun, real, write = [], comparison.unlearn, RoundRecorder.write_round

    def stopping(recorder, *told):
        write(recorder, *told)
        if len(begun) == 2:
            raise KeyboardInterrupt

    def counted(config, workdir, **more):
        begun.append(workdir.rpartition("/")[2])
        return real(config, workdir, **more)

    monkeypatch.setattr(comparison, "unlearn", counted)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RoundRecorder, "write_round", stopping)
        run_compare(config(), str(tmp_path / "shared"))
    assert begun == ["gd-g0-s0", "gd-g1-s0"]
    for number in (1, 0):
        assert run_compare(config(), str(tmp_path / "shared"), Share(number, 2)) is None
    again = run_compare(config(), str(tmp_path / "shared"))
    assert sorted(begun) == sorted([*{*begun}, "gd-g1-s0"]), "no run but the one that was stopped begins twice"
    assert without_seconds(again) == without_seconds(whole)
    gd, pmc = again["rows"]
    assert [[p["point"] for p in row["points"]] for row in (gd, pmc)] == [[0, 1, 2], [1, 2]], "PMC has no recipe here"
    for row in (gd, pmc):
        for point in row["points"]:
            assert point["seeds"] == ([0, 1] if point["point"] == row["chosen"] else [0])
    assert len({*begun}) == 7 and not list(tmp_path.glob("*/runs/*/rounds")) and not list(tmp_path.glob("*/runs/*/hf"))


@pytest.mark.parametrize("never_saw", [False, pytest.param(True, marks=pytest.mark.parity)])
def test_the_chosen_points_are_measured(config, tmp_path, tiny_folder, never_saw):
    """Once each, and held against the start and a model that never saw the data; then the checkpoints go."""
    made = config((Row("gd", GRID[:1], "rivals:gradient_difference"),), MEASURE, measured_seeds=1)
    if never_saw:
        made.evaluate.retain_model = str(tiny_folder)
    results = run_compare(made, str(tmp_path))
    measures = results["rows"][0]["points"][0]["measures"]
    assert measures.keys() >= ROBUSTNESS.keys() and None not in measures["unlearn_quality"]["values"]
    assert measures["extraction"]["values"][1] is None and measures["extraction"]["mean"] is not None, (
        "one is evaluated"
    )
    yardsticks = {"start": "the start"} | ({"never_saw": "never saw it"} if never_saw else {})
    assert [*results["yardsticks"]] == [*yardsticks.values()] and results["missing"] == {}
    assert results["yardsticks"]["the start"]["measures"]["drift_forget"]["mean"] == pytest.approx(0, abs=1e-6)
    run_compare(made, str(tmp_path))  # nothing is left to do
    assert sorted(p.name for p in (tmp_path / "evaluations").iterdir()) == sorted(["gd-g1-s0", *yardsticks])
    assert not list(tmp_path.glob("runs/*/hf")) and (tmp_path / "comparison.html").stat().st_size
    section = (tmp_path / "results.md").read_text()
    assert results["rule"] in " ".join(section.split()) and all(
        f"| {name}" in section for name in ("gd", *yardsticks.values())
    )
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))


def test_the_figures(config, tmp_path):
    """Each is there, and the same for the same results; the page holds them, and loads nothing."""
    pytest.importorskip("matplotlib")
    folder = tmp_path / "ablation"
    rows = tuple(Row(f"n={n}", ({"sample.num_samples": n},)) for n in (1, 2))
    made = config(rows, seeds="0", tuning_seeds=0)
    made.evaluate.every = 1
    results = run_compare(made, str(folder))
    first, second = results["rows"]
    assert first["chosen"] == second["chosen"] == 1 and "drop" in first["points"][0]["measures"]
    files = {file.stem: file.read_bytes() for file in (folder / "figures").iterdir()}
    assert {"quality_utility", "seconds", "rows", "course"} == files.keys() and all(map(len, files.values()))
    assert "×".encode() not in files["seconds"], "seconds are plain numbers: 2 × 10 beside 3 × 10 has no room"
    page = (folder / "comparison.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 4 and "http://" not in page
    run_compare(made, str(folder), table_only=True)
    assert {file.stem: file.read_bytes() for file in (folder / "figures").iterdir()} == files
    assert all(name in (folder / "results.md").read_text() for name in ("figures/course.svg", "n=2"))


def test_folders_of_other_settings_are_refused(config, tmp_path):
    rows = (Row("gd", ({"train.epochs": 1},), "rivals:gradient_difference"),)
    run_compare(config(rows, seeds="0"), str(tmp_path))
    longer = (Row("gd", ({"train.epochs": 2},), "rivals:gradient_difference"),)
    with pytest.raises(settings.UserError, match="gd-g1-s0 holds a run with other settings.*train.epochs: 1"):
        run_compare(config(longer, seeds="0"), str(tmp_path))


def test_a_run_that_fails_is_named_and_the_others_go_on(config, tmp_path):
    rows = Row("gd", ({"train.epochs": 1},), "rivals:gradient_difference"), Row("pmc", ({"train.batch_size": 9},))
    results = run_compare(config(rows, seeds="0"), str(tmp_path / "x"))
    ((name, why),) = results["missing"].items()
    assert name == "pmc-g1-s0" and "train.batch_size=9: there are only 8" in why
    assert [row["chosen"] for row in results["rows"]] == [1, None]
    assert "pmc-g1-s0" in (tmp_path / "x" / "results.md").read_text()
    with pytest.raises(settings.UserError, match="train.batch_size=9"):
        run_compare(config(rows, seeds="0", rows="pmc"), str(tmp_path / "y"))


@pytest.mark.parametrize(
    ("rows", "section", "words"),
    [
        (ROWS, {"rows": "gd,nop"}, "no row 'nop'; choose of gd, pmc"),
        (ROWS, {"seeds": "0,0"}, "compare.seeds='0,0'"),
        (ROWS, {"seeds": "a"}, "compare.seeds='a'"),
        (ROWS, {"floor": 101.0}, "compare.floor=101.0"),
        ((ROWS[0], Row("pmc", GRID[:1])), {}, "as many grid points, one at least; they have: gd 2, pmc 1"),
        ((Row("pmc", ()),), {}, "one at least"),
        ((ROWS[0], ROWS[0]), {}, "'gd' stands there twice"),
        ((Row("a/b", GRID),), {}, "rename it"),
        ((Row("x", GRID, "rivals:nop"),), {}, "x: --config=rivals:nop: choose one of"),
        ((Row("x", GRID, "rival"),), {}, "no such preset"),
        ((Row("x", ({"train.learning_rat": 1.0},)),), {}, "x: there is no setting 'train.learning_rat'; did you mean"),
        ((Row("x", ({"train.epochs": 0},)),), {}, "x: train.epochs=0"),
        ((Row("x", ({"train.epochs": "two"},)),), {}, "x: "),
    ],
)
def test_what_is_refused(config, tmp_path, rows, section, words):
    with pytest.raises(settings.UserError) as caught:
        run_compare(config(rows, **section), str(tmp_path / "x"))
    assert words in str(caught.value) and not (tmp_path / "x").exists()


def test_the_command_line(cli, tmp_path):
    place = f"--workdir={tmp_path / 'x'}"
    assert refused(cli("compare", "--config=tofu", place), "compares nothing", "compare_tofu_mini")
    assert refused(cli("compare", "--config=compare_tofu_mini", place, "--config.model.path=/no/such"), "/no/such")
    assert refused(cli("compare", "--config=compare_tofu_mini", place, "--config.compare.rows=nop"), "no row 'nop'")
    assert refused(cli("compare", "--config=compare_tofu_mini", place, "--task=2", "--tasks=2"), "task from 0 to")
    assert refused(cli("unlearn", "--config=tofu", place, "--task=2"), "a flag of compare")
    said = cli("compare", "--help").out
    assert all(word in said for word in ("--task", "--table", "compare.floor", "compare.seeds", "grid"))
    assert not (tmp_path / "x").exists()


def test_shares(monkeypatch):
    assert share_of(None, None) is None and share_of(1, 3) == Share(1, 3)
    for name, value in {"ID": "13", "MIN": "5", "STEP": "4", "COUNT": "3"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert share_of(None, None) == Share(2, 3)


def test_the_choice():
    """The best unlearn quality that keeps the utility; without one, the best utility."""
    numbers = (99.0, 60.0), (80.0, 95.0), (90.0, 94.9), (85.0, 97.0), (85.0, 98.0)
    tried = [Tried(point, *both) for point, both in enumerate(numbers, 1)]
    assert choose(tried, 95.0) == (4, True) and choose(tried, 94.0) == (3, True) and choose(tried, 50.0) == (1, True)
    assert choose(tried, 99.0) == (5, False)
    assert spread([1.0, None, 3.0])[:2] == (2.0, pytest.approx(2**0.5)) and spread([None]) == (None, None, [None])


def test_the_pareto_front_is_what_every_pair_says():
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 5, 30):
        points = rng.integers(0, 6, (size, 2)).astype(float)  # with many equal numbers

        def beaten(i, points=points):
            return any((q >= points[i]).all() and (q > points[i]).any() for q in points)

        front = pareto_front(points)
        assert sorted(front) == [i for i in range(size) if not beaten(i)]
        assert all(points[a, 0] >= points[b, 0] for a, b in itertools.pairwise(front))


def test_how_far_utility_fell():
    course = [{"updates": u, "utility": v} for u, v in ((5, 98.0), (10, 70.0), (15, 90.0), (20, 96.0), (25, 97.0))]
    assert fall(course, 100.0, 95.0) == {"drop": 30.0, "recovery": 20}
    assert fall(course[:1], 100.0, 95.0) == {"drop": 2.0, "recovery": 0}
    assert fall(course[:3], 100.0, 95.0) == {"drop": 30.0, "recovery": None} and fall([], 100.0, 95.0) == {}


def test_the_presets_of_comparisons():
    """Every method has a row, all with as many points."""
    plan = cells.read_plan(load_preset("compare_tofu_mini"))
    assert {"pmc", "npo", "retain_only", "task_vector"} <= {row.name for row in plan.of.rows}
    points = {row.name: plan.points(row) for row in plan.of.rows}
    assert points.pop("pmc_prefixed") == [1, 2, 3] and all(own == [0, 1, 2, 3] for own in points.values())
    assert len(plan.cells) == 3 * (3 + 4 * len(points))
    npo, untuned = plan.cells["npo", 2, 1].config, plan.cells["npo", 0, 1].config
    assert (npo.train.learning_rate, npo.train.batch_size, npo.seed, npo.method) == (1e-4, 8, 1, "npo")
    assert (untuned.train.learning_rate, untuned.train.batch_size, untuned.seed) == (1e-5, 32, 1)
    assert all(plan.cells["rmu", point, 0].config.method_options == "layer=2" for point in (0, 1))
    assert plan.cells["altpo", 1, 0].config.train.epochs == 2 and npo.train.epochs == 10
    assert cells.label(plan.of.rows[0], 1) == "learning_rate 3e-05" and cells.label(plan.of.rows[0], 0) == "untuned"


def test_a_real_model_s_comparison_holds_one_retain_term():
    """All rows but RMU, which has its own, hold the retain rows by KL."""
    plan = cells.read_plan(load_preset("compare_real"))
    assert len(plan.cells) == 2 * len(plan.of.rows) and {"pmc", "npo"} <= {row.name for row in plan.of.rows}
    for cell in plan.cells.values():
        hyper = hyperparameters(*read_objective(cell.config))
        assert cell.config.method == "rmu" or (hyper["retain_weight"], hyper["kl_weight"]) == (0, 10), cell.name


@pytest.mark.parametrize("what", ["lambda", "samples", "temperature", "selection", "reward", "size", "shared"])
def test_ablations_have_one_point_a_row(what):
    plan = cells.read_plan(load_preset(f"ablations:{what}"))
    assert all(plan.points(row) == [1] for row in plan.of.rows) and len(plan.cells) == 3 * len(plan.of.rows)
    assert all(cell.config.train.epochs == 15 and cell.config.method == "pmc" for cell in plan.cells.values())
    configs = {settings.changed(cell.config, {"seed": 0}).to_json() for cell in plan.cells.values()}
    assert len(configs) == len(plan.of.rows), "each row is another run"


def test_a_set_cut_in_two(config):
    rows = [{"question": f"q{i}", "answer": "a"} for i in range(20)]
    last, spread = cut(rows, "last:10"), cut(rows, "spread:10")
    assert last == (rows[18:], rows[:18]) and spread == ([rows[0], rows[19]], rows[1:19])
    with pytest.raises(settings.UserError, match="data.cut='last:1': of 20 rows one side would have none"):
        cut(rows, "last:1")
    made = settings.changed(config(), {"data.forget": "full", "data.cut": "last:20"})
    data = load_data(made)
    assert (len(data.forget), len(data.retain)) == (8, 32) and "forget_paraphrased" not in data.sets
    for wrong in ("last", "last:0", "first:10", "last:100"):
        with pytest.raises(settings.UserError, match="data.cut="):
            settings.check(settings.changed(made, {"data.cut": wrong}))


def test_a_wide_table_comes_in_parts():
    """Each has the row's name and point; together they have every number once."""
    columns = ["", "point", *"abcdefg"]
    wide = Table("wide", columns, [["npo", "untuned", *"1234567"], ["pmc", "", *"abcdefg"]], [])
    first, second = narrow(wide)
    assert (first.columns, second.columns) == (["", "point", *"abcde"], ["", "point", "f", "g"])
    assert first.rows[0] == ["npo", "untuned", *"12345"] and second.rows[1] == ["pmc", "", "f", "g"]
    assert narrow(first) == [first]


KEPT = sorted((Path(__file__).parents[1] / "docs" / "comparisons").glob("*/results.json"))


@pytest.mark.parametrize("file", KEPT, ids=[file.parent.name for file in KEPT])
def test_the_documents_show_what_was_measured(file):
    """The tables of a comparison that was kept are those that the command makes of its results."""
    lines = (file.parent / "results.md").read_text(encoding="utf-8").splitlines()
    made = markdown(json.loads(file.read_text(encoding="utf-8")), {}).splitlines()
    assert [line for line in lines if not line.startswith("![")][: len(made)] == made
