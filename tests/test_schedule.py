"""Which questions and retain rows a round has, and how many updates an epoch."""

import numpy as np

from pmc_jax.methods.schedule import draw_retain_rows, round_questions
from pmc_jax.methods.settings import read_schedule, read_training
from pmc_jax.training.settings import make_recipe, updates_per_epoch


def test_the_order_of_questions_is_drawn_anew_each_epoch(small):
    config = small({"pmc.questions_per_round": 3, "train.batch_size": 3})
    orders = []
    for epoch in range(6):
        rounds = [round_questions(read_schedule(config, 8), number) for number in range(3 * epoch, 3 * epoch + 3)]
        assert {e for e, _ in rounds} == {epoch}
        orders.append(tuple(int(q) for _, which in rounds for q in which))
        assert sorted(orders[-1]) == list(range(8)) and [len(which) for _, which in rounds] == [3, 3, 2]
    assert len(set(orders)) == 6


def test_retain_rows_are_uniform_and_drawn_by_question_and_epoch():
    retain = list(range(10))
    drawn = [draw_retain_rows(0, epoch, np.arange(8), retain) for epoch in range(250)]
    counts = np.bincount(np.ravel(drawn), minlength=10)
    assert counts.min() > 150 and counts.max() < 250
    assert len({tuple(d) for d in drawn}) > 240
    assert draw_retain_rows(0, 3, np.array([5, 2]), retain) == [drawn[3][5], drawn[3][2]]


def test_the_schedule_counts_the_updates_that_come(tiny_checkpoint, small):
    """Rounds that batches do not divide end with a smaller one; fine-tuning, which has no rounds, has one such an
    epoch.
    """
    config = small(
        {"pmc.questions_per_round": 20, "train.batch_size": 16, "train.epochs": 3, "train.warmup_epochs": 1.0}
    )
    sizes = {20: (20, 60), 0: (13, 39)}
    for round_size, steps in sizes.items():
        updates = updates_per_epoch(200, round_size, 16)
        recipe = make_recipe(tiny_checkpoint.family, tiny_checkpoint.model, read_training(config), updates)
        assert (recipe.warmup_steps, recipe.total_steps) == steps
