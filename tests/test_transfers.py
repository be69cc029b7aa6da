"""Nothing goes between host and devices unsaid in the updates and in the sampler: each transfer is written out."""

import jax
import numpy as np
import pytest

from pmc_jax.data.packing import FORGET, pack
from pmc_jax.data.prompts import training_row
from pmc_jax.distributed import meshes
from pmc_jax.methods.settings import read_training
from pmc_jax.sampling.generate import round_sampler, text_of
from pmc_jax.sampling.prompts import left_pad
from pmc_jax.training.batching import ExpectedRows, choose_packing
from pmc_jax.training.loop import make_step
from pmc_jax.training.run import train_on
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_state


def test_updates(fresh_checkpoint, splits, small):
    config = small()
    text = text_of(fresh_checkpoint, config)
    rows = [training_row(text, r["question"], r["answer"], 200, FORGET) for r in splits["forget20"]]
    settings, mesh = read_training(config), meshes.mesh_of(fresh_checkpoint.params)
    recipe = make_recipe(fresh_checkpoint.family, fresh_checkpoint.model, settings, 2)
    packing = choose_packing(ExpectedRows((rows,), 200, 8), settings.batch, mesh)
    step, state = make_step(fresh_checkpoint, recipe), start_state(fresh_checkpoint, recipe, seed=0)
    with jax.transfer_guard("disallow"):
        state, updates = train_on(step, state, [rows[:4], rows[4:]], packing)
        with pytest.raises(Exception, match="transfer"):  # what the guard would say of a batch as it is packed
            step(state, pack(rows[:4], packing, 1))
    assert len(updates) == 2 and all(np.isfinite(u["loss"]) for u in updates)


def test_sampling(fresh_checkpoint, forget_questions, small):
    """Prefill, decode steps, and the host's look between them."""
    sampler = round_sampler(fresh_checkpoint, small({"sample.max_rows": 16}))
    prompts = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions, 8)
    looks = []

    def prune(seen):
        looks.append(len(seen))
        return set()

    with jax.transfer_guard("disallow"):
        answers = sampler.tokens(prompts, round_index=1, prune=prune)
    assert len(answers) == 8 and all(len(samples) == 4 for samples in answers) and len(looks) > 2
