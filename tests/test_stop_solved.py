"""A run ends some epochs after nine of ten questions are solved and their answers learnt, wherever it was stopped.

Its rate falls to 0 on the way.
"""

import contextlib
import json

import jax
import numpy as np
import pytest
from test_resume import arguments

import pmc_jax
from pmc_jax.data.packing import FORGET, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.methods import memory as memories
from pmc_jax.methods.memory import LEARNT, Memory, after_round, share_solved, unsolved
from pmc_jax.tracking.stopping import Patience, Stopped
from pmc_jax.training import loop as training_loop
from pmc_jax.training import run as training_run
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.update import create_state, put_batch, update


def nothing_left(references, texts):
    """A reward by which any answer solves its question."""
    return np.zeros(len(texts))


@pytest.fixture
def learnt_at_once(monkeypatch):
    """Answers count as learnt whatever their loss is: two epochs at a small rate teach a model nothing."""
    monkeypatch.setattr(memories, "LEARNT", np.inf)


def remembered(*scores):
    return Memory(["ref"] * len(scores), [""] * len(scores), list(scores), [5.0] * len(scores))


def test_a_score_of_0_solves_a_question():
    memory = remembered(0.0, 0.1, 0.2, 0.5, None)
    assert unsolved(memory, np.arange(5), True).tolist() == [1, 2, 3, 4]
    assert unsolved(memory, np.arange(5), False).tolist() == [0, 1, 2, 3, 4]
    assert share_solved(memory) == 0.2


@pytest.mark.parametrize(("solved", "counted"), [(10, 1), (9, 1), (8, 0)])
def test_nine_of_ten_questions_are_enough(solved, counted):
    assert after_round(remembered(*[0.0] * solved, *[0.4] * (10 - solved)), 0.1).rounds_solved == counted


def test_rounds_count_that_leave_enough_solved_and_learnt():
    memory = after_round(after_round(remembered(0.0, 0.0), 0.1), 0.1)
    assert memory.rounds_solved == 2
    assert after_round(memory._replace(scores=[0.0, 0.3]), 0.1).rounds_solved == 0
    assert after_round(memory, LEARNT).rounds_solved == 0, "solved by a sample that the model does not give by itself"
    prefixed = remembered(0.0, 0.0)._replace(scores=[0.0, 0.0, None, 0.9])
    assert after_round(prefixed, 0.1).rounds_solved == 1, "prefixed rows ask something else in each epoch"


@pytest.mark.parametrize(
    ("changed", "rounds"),
    [
        ({"pmc.stop_solved": 1}, 2),
        ({"pmc.stop_solved": 2}, 3),
        ({"pmc.stop_solved": 0}, 4),
        ({"pmc.stop_solved": 9}, 4),
        ({"pmc.stop_solved": 1, "pmc.questions_per_round": 4}, 4),  # two rounds an epoch, solved after the second
    ],
)
def test_the_run_ends_so_many_epochs_later(tiny_checkpoint, splits, small, tmp_path, learnt_at_once, changed, rounds):
    config = small({"pmc.reward": f"{__name__}:nothing_left", "pmc.prune_candidates": False, **changed})

    def run():
        """Parameters, history, and the rounds that are on disk."""
        saved = RoundCheckpointer(tmp_path / "rounds", keep=1)
        unlearned, history = pmc_jax.unlearn(
            tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=saved
        )
        saved.wait()
        kept = saved.all()
        saved.close()
        return jax.tree.leaves(unlearned.params), history, kept

    params, history, kept = run()
    assert [h["round"] for h in history] == list(range(rounds)) and kept == [rounds - 1]
    again, told, kept = run()  # the same command once more finds nothing left to do
    assert told == history and kept == [rounds - 1]
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(params, again))


def test_a_run_goes_on_while_its_answers_are_not_learnt(tiny_checkpoint, splits, small):
    config = small({"pmc.reward": f"{__name__}:nothing_left", "pmc.prune_candidates": False, "pmc.stop_solved": 1})
    _, history = pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], config)
    losses = [h["forget_loss"] for h in history]
    assert len(history) == 4 and all(h["solved"] == 1.0 for h in history) and min(losses[:2]) > LEARNT, losses


def test_the_command_says_so(cli, tmp_path, tiny_folder, data_folder, learnt_at_once):
    words = [*arguments(tiny_folder, data_folder, tmp_path / "run"), f"--config.pmc.reward={__name__}:nothing_left"]
    said = cli(*words, "--config.pmc.prune_candidates=False", "--config.pmc.stop_solved=1", "--config.train.epochs=9")
    ends = "nine of ten questions are solved, and their answers learnt: the run ends after"
    assert said.code == 0 and ends in " ".join(said.out.split()), said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["solved"] == 1.0 and result["rounds"] == 4, "two rounds an epoch"


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_an_update_moves_by_its_share_of_the_rate(fresh_checkpoint, share):
    """Adam's step is the rate times what the gradients say: half of the rate is half of the step."""
    recipe, mesh = Recipe(1e-3, 0.01, 0, 10, 1.0, "float32"), meshes.mesh_of(fresh_checkpoint.params)
    rows = [Row([1, 2, *range(5, 20 + n)], 2, FORGET) for n in range(4)]

    def moved(rate):
        batch = put_batch(pack(rows, Packing(0, 32, 4, 128, 4), rate=rate), mesh)
        state, _ = update(fresh_checkpoint.model, recipe, create_state(fresh_checkpoint.params, recipe), batch)
        moves = jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), state.params, fresh_checkpoint.params)
        return np.concatenate([x.ravel() for x in jax.tree.leaves(moves)])

    whole = moved(1.0)
    assert np.abs(whole).max() > 5e-4
    np.testing.assert_allclose(moved(share), share * whole, atol=3e-7)


@pytest.mark.parametrize("interrupted", ["", "update", "evaluation"])
def test_the_rate_falls_to_0_once_enough_is_solved(
    tiny_checkpoint, splits, small, tmp_path, monkeypatch, learnt_at_once, interrupted
):
    """Also where a round of falling rate is gone on with that was interrupted in its updates, or its evaluation."""
    changed = {"pmc.reward": f"{__name__}:nothing_left", "pmc.prune_candidates": False, "pmc.stop_solved": 3}
    changed |= {"train.epochs": 9, "train.batch_size": 2, "evaluate.every": 1}
    config, rates, patient = small(changed), [], Patience()

    def told(rows, packing, shards, rate):
        rates.append(rate)
        patient.wanted = interrupted == "update" and len(rates) == 6
        return pack(rows, packing, shards, rate)

    monkeypatch.setattr(training_run, "pack", told)
    monkeypatch.setattr(training_loop, "patience", lambda: contextlib.nullcontext(patient))

    def evaluated(number, model):
        if interrupted == "evaluation" and number == 1 and not last:
            raise Stopped

    for last in [False, True][not interrupted :]:
        saved, patient.wanted = RoundCheckpointer(tmp_path / "rounds", keep=1), False
        with contextlib.nullcontext() if last else pytest.raises(Stopped):
            pmc_jax.unlearn(
                tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=saved, on_evaluate=evaluated
            )
        saved.wait()
        saved.close()
    assert rates == [share for share in (1.0, 0.75, 0.5, 0.25) for _ in range(4)]
