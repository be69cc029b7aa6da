"""A benchmark of the user's own: from the command line into the terminal, result.json and the page."""

import json
import sys

import pytest
from report_pages import parsed

from pmc_jax.evaluate import lines
from pmc_jax.evaluate.benchmarks import BENCHMARKS, chosen

TOY = """
from pmc_jax.evaluate.benchmark import Benchmark, Measurement, Part
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.lines import View, mean_line


def load(config):
    return {"questions": [{"question": "Who bakes?"}, {"question": "Who sings?"}]}


def ask(setup):
    questions = [row["question"] for row in setup.data["toy"]["questions"]]
    answers = [samples[0] for samples in setup.sampler.answers(questions)]
    return {"answers": answers, "words": mean_with_interval([len(a.split()) for a in answers])._asdict()}


def lines(result):
    return [mean_line("Words an answer", result["words"], form="number", hint="as <many> as [b]there[/b] are")]


TOY = Benchmark("toy", load, (Part("toy", View("Toy benchmark", lines), (Measurement("toy", ask),)),))
"""


@pytest.fixture
def evaluate(cli, tiny_folder, data_folder, tmp_path, monkeypatch):
    """evaluate(benchmarks, *more) -> Said: a short evaluation in a folder with the toy's module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_benchmarks", raising=False)
    (tmp_path / "my_benchmarks.py").write_text(TOY)

    def run(benchmarks, *more):
        flags = {
            "model.path": tiny_folder,
            "data.path": data_folder,
            "data.forget": "forget20",
            "data.retain": "retain80",
            "evaluate.benchmarks": benchmarks,
            "evaluate.max_new_tokens": 64,
            "evaluate.retain_rows": 8,
            "evaluate.leak_samples": 0,
            "evaluate.relearn_rows": 0,
        }
        return cli("evaluate", *(f"--config.{k}={v}" for k, v in flags.items()), f"--workdir={tmp_path / 'run'}", *more)

    return run


def test_a_toy_from_outside_is_measured_printed_kept_and_on_the_page(evaluate, cli, tmp_path):
    said = evaluate("tofu,my_benchmarks:TOY")
    assert said.code == 0, said.err
    run = tmp_path / "run"
    result = json.loads((run / "result.json").read_text())
    assert list(result)[:4] == ["model", "tofu", "least_likely_option", "toy"]
    words = result["toy"]["words"]
    assert len(result["toy"]["answers"]) == words["rows"] == 2 and words["mean"] > 0
    assert result["evaluate_parts"]["toy"] > 0 and (run / "parts" / "toy.json").exists()
    line = lines.from_json(result["tables"]["toy"]).lines[0]
    assert line.value == words["mean"] and line.value_text() in said.out and line.interval_text() in said.out
    assert "as <many> as [b]there[/b] are" in said.out, "a name is no markup"
    assert "Toy benchmark" in said.out and "Words an answer" in said.out and "toy_questions" in result["data"]

    # The page needs the toy's lines only, not its module.
    (tmp_path / "my_benchmarks.py").unlink()
    sys.modules.pop("my_benchmarks")
    assert cli("report", run).code == 0
    text = parsed(run / "report.html").text
    assert "Toy benchmark" in text
    assert f"Words an answer as <many> as [b]there[/b] are {line.value_text()} {line.interval_text()} 2 rows" in text


@pytest.mark.parametrize(
    "benchmarks, words",
    [
        ("tofu,mauve", ["'mauve'", "'tofu'", "module:attribute"]),
        ("no_such_module:TOY", ["no_such_module", "cannot be imported"]),
        ("my_benchmarks:NONE", ["my_benchmarks", "no 'NONE'"]),
        ("my_benchmarks:load", ["function", "Benchmark"]),
    ],
)
def test_a_benchmark_that_is_none_is_refused_at_once(evaluate, tmp_path, benchmarks, words):
    said = evaluate(benchmarks)
    assert said.code == 2 and said.err.count("\n") == 1 and "evaluate.benchmarks" in said.err
    assert all(word in said.err for word in words), said.err
    assert not (tmp_path / "run").exists()


def test_two_results_of_one_name_are_refused(evaluate, tmp_path):
    (tmp_path / "my_benchmarks.py").write_text(TOY.replace('Part("toy"', 'Part("drift"'))
    said = evaluate("my_benchmarks:TOY")
    assert said.code == 2 and "toy" in said.err and "'drift'" in said.err and "robustness" in said.err


def test_two_benchmarks_of_one_name_are_refused(evaluate, tmp_path):
    (tmp_path / "my_benchmarks.py").write_text(TOY.replace('Benchmark("toy"', 'Benchmark("tofu"'))
    said = evaluate("tofu,my_benchmarks:TOY")
    assert said.code == 2 and "two benchmarks are called 'tofu'" in said.err and not (tmp_path / "run").exists()


def test_what_always_runs():
    always = ["quality", "robustness", "ability"]
    assert [benchmark.name for benchmark in chosen("")] == always
    assert [benchmark.name for benchmark in chosen("robustness, tofu,tofu")] == ["quality", "tofu", *always[1:]]
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


def test_lines_survive_json():
    view = lines.View(
        "Title", lambda result: [lines.Line("a", 0.5, 0.25, 0.75, 4, x=1)], "", lines.Chart("c", "m", "u")
    )
    table = lines.table(view, {"piece": {"reason": "why"}, "other": {"reason": "why"}})
    assert table.reasons == ["why"]
    assert lines.from_json(json.loads(json.dumps(lines.to_json(table)))) == table
    assert lines.table(view, {"reason": "absent"}).lines == []
