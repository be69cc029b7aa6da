"""Which questions and retain rows a round has, and how many updates an epoch."""

import numpy as np

from pmc_jax.data.packing import RETAIN
from pmc_jax.methods.schedule import draw_retain_rows, round_questions
from pmc_jax.methods.settings import read_schedule, read_training
from pmc_jax.methods.sources import make_source
from pmc_jax.tracking.timing import Clock
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


def test_several_retain_rows_of_a_question_are_draws_of_their_own():
    retain, questions = list(range(1000)), np.arange(50)
    first, second, third = (draw_retain_rows(0, 2, questions, retain, number) for number in range(3))
    assert first == draw_retain_rows(0, 2, questions, retain)
    assert all(sum(a == b for a, b in zip(*pair)) < 5 for pair in ((first, second), (second, third), (first, third)))


def test_an_update_has_as_many_retain_rows_as_asked_for(tiny_checkpoint, small, splits):
    for count in (1, 3):
        config = small({"pmc.retain_rows": count, "sample.num_samples": 2, "sample.max_new_tokens": 8})
        forget, retain = splits["forget20"], splits["retain80"]
        source = make_source(tiny_checkpoint, config, forget, retain, [row["answer"] for row in forget])
        memory = source.begin(None, Clock())
        memory = memory._replace(answers=list(memory.references), scores=[1.0] * len(forget))
        batches = source.batches(0, memory)
        assert [len(rows) for rows in batches] == [4 * (1 + count)] * 2
        assert all(sum(row.group == RETAIN for row in rows) == 4 * count for rows in batches)
        assert len(source.expected_rows(memory).groups) == 1 + count


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
