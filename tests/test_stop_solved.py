"""A run ends some epochs after the last question is solved, at the same round however it was started."""

import json

import jax
import numpy as np
import pytest
from test_resume import arguments

import pmc_jax
from pmc_jax.methods.guard import Guard
from pmc_jax.methods.memory import Memory, after_round, share_solved, unsolved
from pmc_jax.training.checkpoint import RoundCheckpointer

MARGIN = Guard(refusal_margin=0.2, refusals=("I cannot say.",))


def nothing_left(references, texts):
    """A reward by which any answer solves its question."""
    return np.zeros(len(texts))


def remembered(*scores):
    return Memory(["ref"] * len(scores), [""] * len(scores), list(scores), [5.0] * len(scores))


def test_with_a_margin_a_refusal_solves_its_question():
    memory = remembered(0.0, 0.1, 0.2, 0.5, None)
    assert unsolved(memory, np.arange(5), True, MARGIN).tolist() == [2, 3, 4]
    assert unsolved(memory, np.arange(5), True).tolist() == [1, 2, 3, 4]
    assert share_solved(memory, MARGIN) == 0.4 and share_solved(memory, Guard()) == 0.2


def test_rounds_count_in_which_all_are_solved():
    memory = after_round(after_round(remembered(0.0, 0.1), MARGIN), MARGIN)
    assert memory.rounds_solved == 2
    assert after_round(memory._replace(scores=[0.0, 0.3]), MARGIN).rounds_solved == 0
    prefixed = remembered(0.0, 0.0)._replace(scores=[0.0, 0.0, None, 0.9])
    assert after_round(prefixed, Guard()).rounds_solved == 1, "prefixed rows ask something else in each epoch"


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
def test_the_run_ends_so_many_epochs_later(tiny_checkpoint, splits, small, tmp_path, changed, rounds):
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


def test_the_command_says_so(cli, tmp_path, tiny_folder, data_folder):
    words = [*arguments(tiny_folder, data_folder, tmp_path / "run"), f"--config.pmc.reward={__name__}:nothing_left"]
    said = cli(*words, "--config.pmc.prune_candidates=False", "--config.pmc.stop_solved=1", "--config.train.epochs=9")
    assert said.code == 0 and "all questions are solved: the run ends after " in " ".join(said.out.split()), said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["solved"] == 1.0 and result["rounds"] == 4, "two rounds an epoch"
