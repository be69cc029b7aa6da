"""Methods that sample nothing, on the tiny model that knows its answers by heart; and that there is one loop."""

import ast
import json

import jax
import numpy as np
import pytest
from tiny import ROOT

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.finetune import finetune
from pmc_jax.methods.settings import read_objective, read_options
from pmc_jax.training.checkpoint import RoundCheckpointer

OWN = """
from pmc_jax.data.packing import FORGET, RETAIN
from pmc_jax.training.objectives import Objective, mean_nll

capped = Objective(
    lambda terms, hyper: mean_nll(terms, RETAIN) - hyper["weight"] * mean_nll(terms, FORGET), hyper=(("weight", 1.0),)
)
number = 7
"""


class Stopped(Exception):
    """Stands for a kill."""


class StopsAfterSave(RoundCheckpointer):
    """Rounds whose process is killed the moment that round 0 is whole on disk."""

    def save(self, number, state, notes):
        super().save(number, state, notes)
        self.wait()
        raise Stopped


def same_bits(one, other):
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)


def without_seconds(history):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


@pytest.mark.parametrize("method", ["npo", "fine-tuning"])
def test_a_stopped_run_goes_on_bit_for_bit(tiny_checkpoint, splits, small, tmp_path, method):
    config = small({"train.epochs": 3, "train.learning_rate": 1e-3})

    def run(checkpoint, rounds=None):
        if method == "fine-tuning":
            return finetune(checkpoint, splits["retain80"], config, rounds=rounds)
        config.method = method
        return pmc_jax.unlearn(checkpoint, splits["forget20"], splits["retain80"], config, rounds=rounds)

    whole, history = run(tiny_checkpoint)
    rounds = StopsAfterSave(tmp_path / "rounds")
    with pytest.raises(Stopped):
        run(tiny_checkpoint, rounds)
    rounds.close()
    rounds = RoundCheckpointer(tmp_path / "rounds")
    resumed, its_history = run(tiny_checkpoint, rounds)
    rounds.close()
    assert same_bits(resumed, whole) and without_seconds(its_history) == without_seconds(history)
    assert [line["round"] for line in history] == [0, 1, 2] and not same_bits(whole, tiny_checkpoint)


@pytest.mark.parametrize(("method", "options"), [("npo", "beta=0.5"), ("gradient_difference", "forget_weight=0.5")])
def test_rivals_forget_from_the_command_line(cli, tiny_folder, data_folder, tmp_path, method, options):
    flags = {"model.path": tiny_folder, "data.path": data_folder, "data.forget": "forget20", "data.retain": "retain80"}
    flags |= {"method": method, "method_options": options, "train.epochs": 5, "train.batch_size": 4}
    flags |= {"train.learning_rate": 1e-3, "evaluate.max_new_tokens": 32, "evaluate.retain_rows": 8}
    run = [f"--workdir={tmp_path / 'run'}", *(f"--config.{name}={value}" for name, value in flags.items())]
    done = cli("unlearn", *run)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["before"]["forget"] > 0.9 and result["after"]["forget"] < 0.7
    assert result["rounds"] == 5 and "solved" not in result
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    in_rounds = [line for line in lines if line["kind"] == "round"]
    assert [line["epoch"] for line in in_rounds] == [0, 1, 2, 3, 4]
    assert in_rounds[-1]["forget_loss"] > in_rounds[0]["forget_loss"]
    assert "Stored score" not in (tmp_path / "run" / "report.html").read_text()
    assert "finished" in cli("unlearn", *run).out
    exported = cli("export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'hf'}")
    assert exported.code == 0, exported.err
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "hf", tmp_path / "run" / "hf")]
    assert weights[0] == weights[1]


def test_without_forget_rows_the_answers_stay(tiny_checkpoint, splits, small, forget_questions):
    config = small({"method": "retain_only", "train.epochs": 2, "train.learning_rate": 1e-4})
    _, history = pmc_jax.unlearn(tiny_checkpoint, forget_questions, splits["retain80"], config)
    assert [list(line) for line in history] == [["round", "epoch", "loss", "retain_loss", "seconds"]] * 2
    assert history[0]["loss"] == history[0]["retain_loss"]


def test_answers_that_are_missing(tiny_checkpoint, splits, small, forget_questions):
    with pytest.raises(UserError, match=r"method='npo' learns from the answers .* 8 of its 8 questions have none"):
        pmc_jax.unlearn(tiny_checkpoint, forget_questions, splits["retain80"], small({"method": "npo"}))


def test_an_objective_of_ones_own(tiny_checkpoint, splits, small, tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    changes = {"method": "own_objective:capped", "method_options": "weight=0.1", "train.epochs": 1}
    _, history = pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], small(changes))
    line = history[0]
    assert line["loss"] == pytest.approx(line["retain_loss"] - 0.1 * line["forget_loss"], rel=1e-4)
    with pytest.raises(UserError, match="must name"):
        read_objective(small({"method": "own_objective:number"}))


def test_hyperparameters(small):
    assert dict(read_objective(small())[1]) == {"retain_weight": 1.25, "refusal_weight": 0.0, "kl_weight": 0.0}
    changes = {"method": "npo", "method_options": "beta=0.2, retain_weight=3", "pmc.retain_weight": 2.0}
    assert dict(read_objective(small(changes))[1]) == {"beta": 0.2, "retain_weight": 3.0}
    changes["method_options"] = ""
    assert read_objective(small(changes))[1] == (), "a rival keeps the defaults of its own"
    assert read_objective(small({"method": "gradient_ascent"}))[1] == ()
    assert read_options("") == {}
    for text, words in {"beta": "'beta' is not NAME=NUMBER", "gamma=1": "no hyperparameter 'gamma'"}.items():
        with pytest.raises(UserError, match=words):
            read_objective(small({"method": "npo", "method_options": text}))
    with pytest.raises(UserError, match="method='forgetting': choose one of 'pmc'"):
        read_objective(small({"method": "forgetting"}))


def test_there_is_one_loop():
    """Rounds are saved in one place. Updates are made there, and by the relearning attack, with the same function."""
    callers = {"check_finite": set(), "train_on": set(), "self.rounds.save": set()}
    for file in (ROOT / "pmc_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in callers:
                callers[name].add(file.relative_to(ROOT / "pmc_jax").as_posix())
    assert callers["check_finite"] == callers["self.rounds.save"] == {"training/run.py"}
    assert callers["train_on"] == {"training/run.py", "evaluate/relearn.py"}
