"""Relearning: how few updates on a few forget rows bring the rest of the secret back. A model that never knew it is the
yardstick.
"""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import meshes
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.methods.rewards import score
from pmc_jax.methods.settings import read_batch
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.training.batching import ExpectedRows, choose_packing
from pmc_jax.training.loop import train_on
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.update import Recipe, create_state, update

LOOKS = (1, 3, 10, 30, 100)  # updates after which the answers are looked at, besides the first and the last


def relearning(
    sampler: Sampler, config: ConfigDict, rows: Rows, first: list[str], on_progress: Any = None
) -> list[dict[str, Any]]:
    """[{updates, shown, held_back}]: mean ROUGE-L recall, with rows and interval, of greedy answers to the rows trained
    on and to all others.

    sampler: greedy, one sample. first: its greedy answers before any update. `evaluate.relearn_rows` rows, spread
    over the file, make one batch that is trained on again and again for `evaluate.relearn_updates` updates at the full
    `train.learning_rate`, by cross-entropy on true answers.
    """
    shown = np.unique(np.linspace(0, len(rows) - 1, min(config.evaluate.relearn_rows, len(rows))).astype(int))
    others = np.setdiff1d(np.arange(len(rows)), shown)
    checkpoint, text = sampler.checkpoint, sampler.text
    examples = [
        training_row(text, rows[i]["question"], rows[i]["answer"], config.train.max_length, group=FORGET) for i in shown
    ]
    t = config.train
    constant = Recipe(
        t.learning_rate,
        t.weight_decay,
        warmup_steps=0,
        total_steps=10**9,
        grad_clip=t.grad_clip,
        compute_dtype=config.model.compute_dtype,
        objective=OBJECTIVES["cross_entropy"],
    )
    state = create_state(checkpoint.params, constant)
    expected = ExpectedRows((examples,), 1, len(examples))
    packing = choose_packing(expected, read_batch(config), meshes.mesh_of(state.params))
    step = functools.partial(update, checkpoint.model, constant)
    looks, done, last = [look_at(0, [[a] for a in first], rows, shown, others)], 0, config.evaluate.relearn_updates
    for look in [n for n in LOOKS if n < last] + [last]:
        state, _ = train_on(step, state, [examples] * (look - done), packing)
        done = look
        answers = sampler.with_params(state.params).answers([r["question"] for r in rows])
        looks.append(look_at(done, answers, rows, shown, others))
        if on_progress:
            on_progress(done, f"held back {looks[-1]['held_back']['mean'] or 0:.2f}")
    return looks


def look_at(
    updates: int, answers: list[list[str]], rows: Rows, shown: np.ndarray, others: np.ndarray
) -> dict[str, Any]:
    """What is known after so many updates."""
    recall_N = score([r["answer"] for r in rows], answers)[:, 0]
    return {"updates": updates} | {
        name: mean_with_interval(recall_N[which])._asdict() for name, which in (("shown", shown), ("held_back", others))
    }
