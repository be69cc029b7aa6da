"""Relearning on tiny checkpoints."""

from pmc_jax.draw import GREEDY
from pmc_jax.evaluate.relearn import relearning
from pmc_jax.generate import make_generator


def test_shown_rows_come_back_and_what_is_known_stays(tiny_checkpoint, fresh_checkpoint, small, splits):
    """An untrained model learns the rows it is shown within some updates and little of the others; one that knows them knows them at once."""
    rows = splits["forget20"]
    config = small({"evaluate.max_new_tokens": 48, "evaluate.relearn_rows": 2, "evaluate.relearn_updates": 60, "train.learning_rate": 5e-3})
    found = relearning(make_generator(fresh_checkpoint, config, GREEDY, 1), config, rows)
    assert [f["updates"] for f in found] == [0, 1, 2, 5, 10, 20, 50, 60]
    assert found[0]["shown"] < 0.2 and found[-1]["shown"] > 0.8 > found[-1]["held_back"]
    knows = relearning(make_generator(tiny_checkpoint, config, GREEDY, 1), config.copy_and_resolve_references(), rows)
    assert knows[0]["held_back"] > 0.9
