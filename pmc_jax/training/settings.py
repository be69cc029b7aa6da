"""The settings of training as users give them, in epochs, and the recipe that they make, in updates."""

import math
from typing import NamedTuple

from jax.sharding import AbstractMesh, Mesh

from pmc_jax.distributed.device_kind import choose_compute_dtype
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family, lora
from pmc_jax.models.config import ModelConfig, Rope
from pmc_jax.training.batching import BatchSettings
from pmc_jax.training.objectives import Objective
from pmc_jax.training.recipe import Recipe


class AdapterSettings(NamedTuple):
    """Low-rank adapters.

    Attributes:
        rank: of the adapters; 0 = the weights themselves are trained.
        alpha: adapters are scaled by alpha / rank.
        targets: "all", or module names joined by commas.
    """

    rank: int
    alpha: float
    targets: str


class ModelSize(NamedTuple):
    """What the learning rate goes by.

    Attributes:
        width: of the residual stream; 0 = any.
        layers: of the model; 0 = any.
    """

    width: int = 0
    layers: int = 0


ANY_SIZE = ModelSize()


def size_of(config: ModelConfig) -> ModelSize:
    """The size of a model."""
    return ModelSize(config.width, config.num_layers)


class TrainSettings(NamedTuple):
    """The settings of training, as small as training needs them.

    Attributes:
        objective: what the model is trained for.
        hyper: hyperparameters of the objective that differ from its defaults.
        batch: how rows are dealt to updates.
        adapters: which adapters are trained, if any.
        epochs: passes over the rows.
        warmup_epochs: epochs until the peak rate.
        optimizer: "adamw" or "adafactor".
        moment_dtype: of AdamW's first moment; empty = the parameters' own.
        learning_rate: peak, before `peak_rate`.
        weight_decay: decoupled.
        grad_clip: global gradient norm; 0 = off.
        compute_dtype: of the forward and backward pass; empty = what suits the devices (`on`).
        max_length: tokens of a training row, its prompt included.
        seed: all randomness.
        save_every: rounds from one that is saved to the next; `saving.LEFT_OPEN` = by the size of a round.
        save_minutes: minutes after the last saved round, after which the next one is saved too; 0 = never.
        evaluate_every: rounds between evaluations; 0 = none.
        gather_once: weights are gathered over `data` once an update, not in each layer.
        tuned_on: the model that the learning rate is for.
        keep_best: the last round is evaluated too, and the run ends by going back to the round that was called good.
        interpolation: the result lies so much of the way from the start parameters to the trained ones.
    """

    objective: Objective
    hyper: tuple[tuple[str, float], ...]
    batch: BatchSettings
    adapters: AdapterSettings
    epochs: int
    warmup_epochs: float
    optimizer: str
    moment_dtype: str
    learning_rate: float
    weight_decay: float
    grad_clip: float
    compute_dtype: str
    max_length: int
    seed: int
    save_every: int
    save_minutes: float
    evaluate_every: int
    gather_once: bool = False
    tuned_on: ModelSize = ANY_SIZE
    keep_best: bool = False
    interpolation: float = 1.0

    def on(self, mesh: Mesh | AbstractMesh) -> "TrainSettings":
        """The settings on a mesh's kind of device: what they leave open is decided."""
        return self._replace(compute_dtype=choose_compute_dtype(self.compute_dtype, mesh))


def updates_per_epoch(num_rows: int, round_size: int, batch_size: int) -> int:
    """How many updates an epoch has.

    Args:
        num_rows: examples of an epoch.
        round_size: examples that are dealt to batches at a time; 0 = all. Batches never straddle a round.
        batch_size: the most examples of a batch.
    """
    round_size = min(round_size or num_rows, num_rows)
    sizes = [min(round_size, num_rows - start) for start in range(0, num_rows, round_size)]
    return sum(-(-size // batch_size) for size in sizes)


def peak_rate(given: float, tuned_on: ModelSize, model: ModelSize) -> float:
    """The peak learning rate for a model.

    Args:
        given: the rate.
        tuned_on: the model that it is for.
        model: that is trained.

    Returns:
        The rate as it is where it is for every model; else to two digits: in inverse proportion to the width, and to
        the root of the number of layers, as Adam's rate goes in muP (Yang et al., arXiv 2203.03466) and in Depth-muP
        (Yang et al., arXiv 2310.02244).
    """
    if tuned_on == ANY_SIZE:
        return given
    by_width = tuned_on.width / model.width if tuned_on.width else 1.0
    by_layers = math.sqrt(tuned_on.layers / model.layers) if tuned_on.layers else 1.0
    return float(f"{given * by_width * by_layers:.1e}")


def make_recipe(family: Family, model: Decoder, settings: TrainSettings, updates: int) -> Recipe:
    """Make the recipe of a run.

    Args:
        family: of the model.
        model: that is trained.
        settings: of training.
        updates: how many updates an epoch has.

    Returns:
        The recipe; hashable, a static argument of the update.

    Raises:
        UserError: the model does not have one of the adapters' targets.
    """
    return Recipe(
        optimizer=settings.optimizer,
        moment_dtype=settings.moment_dtype,
        learning_rate=peak_rate(settings.learning_rate, settings.tuned_on, size_of(model.config)),
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_epochs * updates),
        total_steps=settings.epochs * updates,
        grad_clip=settings.grad_clip,
        compute_dtype=settings.compute_dtype,
        lora=plan_adapters(family, model, settings.adapters),
        objective=settings.objective,
        hyper=settings.hyper,
        updates_per_epoch=updates,
        gather_once=settings.gather_once,
        interpolation=settings.interpolation,
    )


def plan_adapters(family: Family, model: Decoder, settings: AdapterSettings) -> lora.Lora | None:
    """Plan the adapters that the settings ask for.

    Returns:
        The adapters; None where the weights are trained.

    Raises:
        UserError: the model does not have one of the targets.
    """
    return lora.plan(family, model, settings.rank, settings.alpha, settings.targets) if settings.rank else None


def check_length(max_length: int, ropes: tuple[Rope, ...]) -> None:
    """UserError where rows could outgrow what dynamic RoPE was trained for.

    Packed examples would then change each other's angles.
    """
    for rope in ropes:
        if rope.max_fixed_length and max_length > rope.max_fixed_length:
            key = "max_position_embeddings" if rope.type == "dynamic" else "original_max_position_embeddings"
            raise UserError(
                f"train.max_length={max_length}: with {rope.type} RoPE at most {key}={rope.max_fixed_length}"
            )
