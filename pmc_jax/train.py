"""Training rows in, updated state out: packing sizes, the recipe, and the loop over batches that unlearning and fine-tuning share."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax import parallel
from pmc_jax.models import Decoder
from pmc_jax.prompts import Batch, Row, Shape, common_prefix, pack
from pmc_jax.update import Recipe, TrainState, put_batch, update

ROW_MULTIPLE = 64


class Packing(NamedTuple):
    """How batches are packed: the shared prefix, and the shape compiled for, which grows when a batch does not fit."""

    prefix: int
    rows: int
    length: int
    labels: int


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
        compute_dtype=config.model.compute_dtype or config.model.dtype,
    )


def start_packing(config: ConfigDict, forget: list[Row], retain: list[Row], mesh: Mesh) -> Packing:
    """A first guess at the batch shape: what a typical batch needs, with a margin, so that one compiled shape serves most batches."""
    every = forget + retain
    prefix = common_prefix(every)
    longest = max(len(r.tokens) for r in every)
    length = -(-max(longest, min(config.train.max_length, 4 * ROW_MULTIPLE)) // ROW_MULTIPLE) * ROW_MULTIPLE
    rng = np.random.default_rng(0)
    shapes = []
    for _ in range(16):
        groups = [[rows[i] for i in rng.integers(len(rows), size=config.train.batch_size)] for rows in (forget, retain) if rows]
        least = Shape(1, length, ROW_MULTIPLE)
        shapes.append(pack([row for g in groups for row in g], prefix, least, mesh.shape["data"], config.train.accumulate)[1])
    return Packing(prefix, max(s.rows for s in shapes), length, max(s.labels for s in shapes))


def train_on(
    model: Decoder, recipe: Recipe, state: TrainState, batches: list[list[Row]], packing: Packing, config: ConfigDict, on_update: Any = None
) -> tuple[TrainState, Packing, list[dict[str, float]]]:
    """One update per batch. Returns the state, the packing (grown if need be) and each update's metrics, read only after the last was sent off."""
    mesh = parallel.mesh_of(state.params)
    shape = Shape(packing.rows, packing.length, packing.labels)
    pending: list[dict[str, jax.Array]] = []
    for rows in batches:
        batch, shape = pack(rows, packing.prefix, shape, mesh.shape["data"], config.train.accumulate)
        state, metrics = update(model, recipe, state, put_batch(Batch(*batch), mesh))
        pending.append(metrics)
        if on_update:
            on_update()
    found = [{k: float(v) for k, v in m.items()} for m in jax.device_get(pending)]
    return state, packing._replace(rows=shape.rows, labels=shape.labels), found
