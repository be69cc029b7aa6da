"""Relearning on tiny checkpoints."""

from pmc_jax.evaluate.relearn import relearning
from pmc_jax.sampling.generate import greedy_sampler


def test_shown_rows_come_back_and_what_is_known_stays(tiny_checkpoint, fresh_checkpoint, small, splits):
    """An untrained model learns the rows it is shown within some updates and little of the others; one that knows them
    knows them at once.
    """
    rows = splits["forget20"]
    config = small(
        {
            "evaluate.max_new_tokens": 48,
            "evaluate.relearn_rows": 2,
            "evaluate.relearn_updates": 60,
            "train.learning_rate": 5e-3,
        }
    )
    sampler = greedy_sampler(fresh_checkpoint, config)
    first = [a for (a,) in sampler.answers([row["question"] for row in rows])]
    looks = relearning(sampler, config, rows, first)
    assert [f["updates"] for f in looks] == [0, 1, 3, 10, 30, 60]
    assert looks[0]["shown"]["mean"] < 0.2 and looks[-1]["shown"]["mean"] > 0.8 > looks[-1]["held_back"]["mean"]
    assert looks[0]["shown"]["rows"] == 2 and looks[0]["held_back"]["rows"] == len(rows) - 2
    short = small({"evaluate.max_new_tokens": 48, "evaluate.relearn_rows": 99, "evaluate.relearn_updates": 1})
    knows = relearning(greedy_sampler(tiny_checkpoint, short), short, rows, [row["answer"] for row in rows])
    assert knows[0]["shown"]["mean"] == 1 and knows[0]["held_back"]["mean"] is None, "all rows are shown"
