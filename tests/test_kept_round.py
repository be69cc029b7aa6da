"""The best round of a run is the one that is exported, also where the run was stopped on the way."""

import json

import jax.numpy as jnp
import pytest
from lines import refused
from test_resume import arguments

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.runs import unlearn as verb
from pmc_jax.runs.kept_round import Bounds, KeptRound, read_bounds
from pmc_jax.training.checkpoint import RoundCheckpointer


def judged(kept, *evaluations):
    return [kept.judge(n, {"unlearn_quality": q, "utility": u}) for n, (q, u) in enumerate(evaluations)]


def test_the_best_quality_above_the_floor_then_the_highest_utility():
    kept = KeptRound(Bounds(0, 95.0))
    assert judged(kept, (50, 80), (60, 70), (40, 90)) == [True, None, True], "below the floor utility counts"
    assert "no evaluated round" in kept.why() and kept.best["round"] == 2
    assert judged(kept, (30, 95), (99, 94.9), (30, 99), (31, 96)) == [True, None, None, True]
    assert kept.best == {"round": 3, "unlearn_quality": 31, "utility": 96} and "31.0" in kept.why()


def test_with_a_guard_the_run_ends_with_the_best_round():
    kept = KeptRound(Bounds(80.0, 95.0))
    assert judged(kept, (50, 96), (40, 97), (99, 79)) == [True, None, False]
    assert kept.told(0)["stopped"] == {"round": 2, "utility": 79, "min_utility": 80.0, "kept_round": 0}
    assert judged(KeptRound(Bounds(80.0, None)), (50, 96), (40, 97), (99, 79)) == [True, True, False]
    assert judged(KeptRound(Bounds(0.0, None)), (50, 96)) == [None]


def test_a_pinned_round_stays(tmp_path):
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=1)
    stored = []
    for number, pinned in enumerate([None, 1, 1, 1, 4, 4]):
        rounds.pin(pinned)
        rounds.save(number, {"a": jnp.ones(3)}, {})
        rounds.wait()
        stored.append(rounds.all())
    rounds.close()
    assert stored == [[0], [1], [1, 2], [1, 3], [4], [4, 5]]


QUALITY = {0: 30.0, 1: 70.0, 2: 60.0, 3: 50.0, 4: 99.0, 5: 40.0}  # round 4 has no utility left


@pytest.mark.parametrize("stopped", [None, 2, "after"])
def test_the_best_round_is_exported_also_after_a_stop(cli, tmp_path, tiny_folder, data_folder, monkeypatch, stopped):
    """Rounds 2 to 5 come after the best one; only the newest of them stays on disk."""
    words = [*arguments(tiny_folder, data_folder, tmp_path / "run"), "--config.train.epochs=3"]
    words += ["--config.evaluate.every=1", "--config.rounds.keep=1"]
    assert refused(cli(*words, "--config.evaluate.keep_best=True", "--config.evaluate.every=0"), "evaluate.every")
    words += ["--config.evaluate.keep_best=True", "--config.evaluate.keep_best_utility=0.9"]
    original, stops, made = verb.evaluate_on, [stopped], []

    def told(checkpoint, config, sets, references, what, show=True):
        word = what.split()[-1]
        if word == str(stops[0]):
            stops[0] = None
            made[-1].close()  # this process goes on, and so would the threads that write
            raise KeyboardInterrupt
        evaluation = original(checkpoint, config, sets, references, what, show)
        if not word.isdigit():
            return evaluation
        number = int(word)

        class Told(type(evaluation)):
            def summary(self):
                utility = 10.0 if number == 4 else 100.0
                return super().summary() | {"utility": utility, "unlearn_quality": QUALITY[number]}

        return Told(*evaluation)

    monkeypatch.setattr(verb, "evaluate_on", told)
    monkeypatch.setattr(verb, "RoundCheckpointer", lambda *a: made.append(RoundCheckpointer(*a)) or made[-1])
    said = cli(*words)
    if stopped is not None:
        assert said.code == 130 and not (tmp_path / "run" / "result.json").exists()
        said = cli(*words)
    assert said.code == 0 and "round 1 is exported: the best unlearn quality, 70.0" in " ".join(said.out.split()), said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best"]["round"] == 1 and result["rounds"] == 2 and result["best"]["utility"] == 100.0
    assert "round 1: the best unlearn quality" in (tmp_path / "run" / "report.html").read_text()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["round"] for line in lines if line["kind"] == "evaluation"] == list(range(6))
    assert RoundCheckpointer(tmp_path / "run" / "rounds", read_only=True).all() == [1, 5]
    said = cli("export", f"--workdir={tmp_path / 'run'}", "--round=1", f"--output={tmp_path / 'out'}")
    kept = tmp_path / "run" / "hf" / "model.safetensors"
    assert said.code == 0 and (tmp_path / "out" / "model.safetensors").read_bytes() == kept.read_bytes()


def test_what_cannot_be_judged_is_refused(tiny_checkpoint, splits, small):
    config = small({"evaluate.keep_best": True, "evaluate.every": 1})
    with pytest.raises(UserError, match="RoundCheckpointer"):
        pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], config)
    with pytest.raises(UserError, match="original model has a utility of 50.0"):
        read_bounds(small({"guard.min_utility": 60.0, "evaluate.every": 1}), {"utility": 50.0})
    with pytest.raises(UserError, match="can be scored"):
        read_bounds(config, {"utility": 50.0, "unlearn_quality": None})
