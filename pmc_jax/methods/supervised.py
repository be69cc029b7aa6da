"""Fine-tune a checkpoint on question-answer rows, or train one from scratch: the step that comes before unlearning."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows, check_rows
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import text_of
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import check_finite, check_length, make_step, start_packing, train_on, trained, with_remat
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.resume import begin, is_saved


def finetune(
    checkpoint: PretrainedModel,
    rows: Rows,
    config: ConfigDict,
    *,
    rounds: RoundCheckpointer | None = None,
    clock: Clock | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """Train on the answers of `rows` (dicts with "question" and "answer") by cross-entropy, answer tokens only, end
    token included.

    Published recipe: AdamW, linear warm-up and decay. Each epoch is saved as a round and a stopped run goes on from the
    last one. Returns the checkpoint with new parameters, and one dict an epoch: its number, mean loss, and learning
    steps.
    """
    config = settings.check(config)
    check_length(config, checkpoint.config.rope)
    check_rows(rows, "fine-tuning data", ("question", "answer"))
    if config.train.batch_size > len(rows):
        raise UserError(
            f"train.batch_size={config.train.batch_size}: there are only {len(rows)} rows; choose at most {len(rows)}"
        )
    checkpoint = with_remat(checkpoint, config)
    with clock or Clock() as clock:
        text = text_of(checkpoint, config)
        examples = [training_row(text, r["question"], r["answer"], config.train.max_length, group=FORGET) for r in rows]
        recipe, state, notes = begin(checkpoint, config, len(rows), rounds, clock)
        history = notes["history"] if notes else []
        packing = start_packing(config, examples, [], 1, meshes.mesh_of(state.params), config.train.batch_size)
        step = make_step(checkpoint, recipe._replace(objective=OBJECTIVES["cross_entropy"], hyper=()))
        for epoch in range(len(history), config.train.epochs):
            order = np.random.default_rng([config.seed, epoch]).permutation(len(rows))
            size = config.train.batch_size
            batches = [[examples[i] for i in order[at : at + size]] for at in range(0, len(rows), size)]
            with clock.phase("update"):
                state, updates = train_on(step, state, batches, packing)
            check_finite(updates, f"epoch {epoch}")
            history.append(
                {"round": epoch, "loss": float(np.mean([u["forget_loss"] for u in updates])), "updates": len(updates)}
            )
            with clock.phase("save"):
                if on_epoch:
                    on_epoch(history[-1])
                if rounds and is_saved(config, epoch, config.train.epochs):
                    rounds.save(
                        epoch, state, {"history": list(history), "seconds": dict(clock.seconds)}
                    )  # as in collapse.py
    return trained(checkpoint, recipe, state), history
