"""Which questions and retain rows a round has, and how many updates an epoch."""

import numpy as np

import pmc_jax
from pmc_jax.data.packing import RETAIN
from pmc_jax.methods.schedule import draw_retain_rows, round_questions
from pmc_jax.methods.settings import fitted, read_schedule, read_training
from pmc_jax.methods.sources import make_source
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.settings import ModelSize, make_recipe, peak_rate, size_of, updates_per_epoch


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


def test_few_questions_get_as_many_updates_as_are_asked_for(small):
    """And never fewer epochs than are asked for. Fitted settings stay as they are."""
    config = small({"train.updates": 100, "train.epochs": 6, "train.batch_size": 4, "pmc.questions_per_round": 0})
    wanted = {1: (1, 100), 3: (3, 100), 20: (4, 20), 42: (4, 10), 100: (4, 6), 400: (4, 6)}
    for questions, (batch, epochs) in wanted.items():
        own = fitted(config, questions)
        assert (own.train.batch_size, own.train.epochs) == (batch, epochs), questions
        assert fitted(own, questions) == own
        assert updates_per_epoch(questions, 0, batch) * epochs >= 100 or epochs == 6
    prefixed = fitted(small({"train.updates": 100, "train.batch_size": 4, "pmc.prefix_rows": 1}), 10)
    assert prefixed.train.epochs == 20, "prefixed rows fill updates too"
    assert fitted(small({"train.batch_size": 9}), 8).train.batch_size == 9, "left to the check"


def test_a_rate_for_one_model_goes_by_the_size_of_another(tiny_checkpoint, small):
    """The point that was measured, and what follows for other sizes; as it is given where it is for every one."""
    tuned_on = ModelSize(576, 30)
    sizes = (256, 6), (576, 30), (2048, 24), (3072, 28), (8192, 80)
    assert [peak_rate(3e-5, tuned_on, ModelSize(*size)) for size in sizes] == [1.5e-4, 3e-5, 9.4e-6, 5.8e-6, 1.3e-6]
    size = size_of(tiny_checkpoint.config)
    for given in ((576, 30), (576, 0), (0, 30), (0, 0)):
        named = dict(zip(("train.rate_width", "train.rate_layers"), given))
        training = read_training(small({"train.learning_rate": 2.34e-5} | named))
        rate = make_recipe(tiny_checkpoint.family, tiny_checkpoint.model, training, 1).learning_rate
        by_width, by_layers = (g / s if g else 1 for g, s in zip(given, size))
        assert np.isclose(rate, 2.34e-5 * by_width * by_layers**0.5, rtol=0.05)
    assert rate == 2.34e-5


def test_one_question_is_gone_through_until_there_are_updates_enough(tiny_checkpoint, splits, small):
    config = small({"train.updates": 3, "train.epochs": 1, "train.rate_width": 64, "pmc.skip_solved": False})
    lines, forget = [], splits["forget20"][:1]
    _, history = pmc_jax.unlearn(
        tiny_checkpoint, forget, splits["retain80"], config, on_round=lambda *told: lines.append(told[2])
    )
    assert len(history) == 3 and all(len(updates) == 1 for updates in lines)
