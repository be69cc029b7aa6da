"""Relearning: how few updates on a few forget rows bring the rest of the secret back.

A model that never knew it is the yardstick.
"""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import meshes
from pmc_jax.evaluate.recall import CONTENT, greedy_recall, mean_recall
from pmc_jax.methods.settings import read_batch, read_rate
from pmc_jax.models.config import ModelConfig
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.training.batching import ExpectedRows, choose_packing
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.run import train_on
from pmc_jax.training.state import start_state
from pmc_jax.training.update import Recipe, update

LOOKS = (1, 3, 10, 30, 100)  # updates after which the answers are looked at, besides the first and the last


def relearning(
    sampler: Sampler, config: ConfigDict, rows: Rows, first_answers: list[str], on_progress: Any = None
) -> list[dict[str, Any]]:
    """How soon the rows that are held back come back while others are trained on.

    `evaluate.relearn_rows` rows, spread over the file, make one batch that is trained on again and again for
    `evaluate.relearn_updates` updates at the full `train.learning_rate`, by cross-entropy on true answers.

    Args:
        sampler: greedy, one sample.
        config: all settings.
        rows: forget rows with question and answer.
        first_answers: the greedy answers before any update.
        on_progress: called with the number of updates done and a note.

    Returns:
        [{"updates", "shown", "held_back"}]: mean recall by `evaluate.score`, with rows and interval, of greedy answers
        to the rows trained on and to all others; and "content_recall": the same by content recall.
    """
    shown_N = np.unique(np.linspace(0, len(rows) - 1, min(config.evaluate.relearn_rows, len(rows))).astype(int))
    checkpoint = sampler.checkpoint
    recipe = constant_recipe(config, checkpoint.config, sampler.compute_dtype)
    examples = [
        training_row(sampler.text, rows[i]["question"], rows[i]["answer"], config.train.max_length, group=FORGET)
        for i in shown_N
    ]
    state = start_state(checkpoint, recipe, 0)
    expected = ExpectedRows((examples,), 1, len(examples))
    packing = choose_packing(expected, read_batch(config), meshes.mesh_of(state.params))
    step = functools.partial(update, checkpoint.model, recipe)
    last = config.evaluate.relearn_updates
    look = functools.partial(look_after, rows=rows, shown_N=shown_N, score=config.evaluate.score)
    looks, done = [look(0, first_answers)], 0
    for updates in [n for n in LOOKS if n < last] + [last]:
        state, _ = train_on(step, state, [examples] * (updates - done), packing)
        done = updates
        answers = sampler.with_params(state.params).answers([r["question"] for r in rows])
        looks.append(look(done, [samples[0] for samples in answers]))
        if on_progress:
            on_progress(done, f"held back {looks[-1]['held_back']['mean'] or 0:.2f}")
    return looks


def constant_recipe(config: ConfigDict, model: ModelConfig, compute_dtype: str) -> Recipe:
    """Cross-entropy at the full learning rate."""
    return Recipe(
        read_rate(config, model),
        config.train.weight_decay,
        warmup_steps=0,
        total_steps=10**9,
        grad_clip=config.train.grad_clip,
        compute_dtype=compute_dtype,
        objective=OBJECTIVES["cross_entropy"],
    )


def look_after(updates: int, answers: list[str], rows: Rows, shown_N: np.ndarray, score: str) -> dict[str, Any]:
    """What is known after so many updates. shown_N: indices of the rows trained on."""

    def by(name: str) -> dict[str, Any]:
        texts = ([row[key] for row in rows] for key in ("question", "answer"))
        recall_N = greedy_recall(name, *texts, answers)
        parts = {"shown": recall_N[shown_N], "held_back": np.delete(recall_N, shown_N)}
        return {part: mean_recall(values) for part, values in parts.items()}

    return {"updates": updates} | by(score) | {"content_recall": by(CONTENT)}
