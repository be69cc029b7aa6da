"""Training rows in, updated state out: packing sizes, the recipe, and the loop over batches that unlearning and fine-tuning share."""

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax import parallel
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder
from pmc_jax.models.config import Rope
from pmc_jax.packing import Packing, Row, common_prefix, pack, plan_packing
from pmc_jax.update import Recipe, TrainState, put_batch, update


def make_recipe(config: ConfigDict, num_rows: int) -> Recipe:
    """The optimiser's settings for `num_rows` training rows an epoch; rounds and batches never straddle an epoch."""
    round_size = min(config.pmc.questions_per_round or num_rows, num_rows)
    sizes = [min(round_size, num_rows - start) for start in range(0, num_rows, round_size)]
    steps = sum(-(-size // config.train.batch_size) for size in sizes)
    t = config.train
    return Recipe(
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup_steps=round(t.warmup_epochs * steps),
        total_steps=t.epochs * steps,
        grad_clip=t.grad_clip,
        retain_weight=config.pmc.retain_weight,
        compute_dtype=config.model.compute_dtype,
    )


def check_length(config: ConfigDict, rope: Rope) -> None:
    """UserError where rows could outgrow what dynamic RoPE was trained for: packed examples would then change each other's angles."""
    if rope.type == "dynamic" and config.train.max_length > rope.max_positions:
        raise UserError(f"train.max_length={config.train.max_length}: with dynamic RoPE at most max_position_embeddings={rope.max_positions}")


def start_packing(config: ConfigDict, forget: list[Row], retain: list[Row], longest: int, mesh: Mesh) -> Packing:
    """The packing for batches of `train.batch_size` of each kind of row, planned on drawn ones. The same rows give the same packing.

    forget, retain: rows like those to come. longest: the most tokens that any row to come can have.
    """
    longest = max(longest, *(len(r.tokens) for r in forget + retain))

    def draw_batch(number: int) -> list[Row]:
        rng = np.random.default_rng([config.seed, number])
        return [rows[i] for rows in (forget, retain) if rows for i in rng.integers(len(rows), size=config.train.batch_size)]

    return plan_packing(draw_batch, longest, common_prefix(forget + retain), mesh.shape["data"], config.train.accumulate)


def train_on(
    model: Decoder, recipe: Recipe, state: TrainState, batches: list[list[Row]], packing: Packing, config: ConfigDict
) -> tuple[TrainState, list[dict[str, float]]]:
    """One update per batch. Returns the state and each update's metrics, read only after the last update was sent off."""
    mesh = parallel.mesh_of(state.params)
    pending: list[dict[str, jax.Array]] = []
    for rows in batches:
        batch = pack(rows, packing, mesh.shape["data"], config.train.accumulate)
        state, metrics = update(model, recipe, state, put_batch(batch, mesh))
        pending.append(metrics)
    return state, [{k: float(v) for k, v in m.items()} for m in jax.device_get(pending)]
