"""The recipe: the static argument of `update`, with schedules in updates."""

from typing import NamedTuple

from pmc_jax.models.lora import Lora
from pmc_jax.training.objectives import OBJECTIVES, Objective, hyperparameters
from pmc_jax.training.objectives.objective import needs_start


class Recipe(NamedTuple):
    """Settings of an update; hashable, so that it is a static argument.

    Attributes:
        learning_rate: after the warm-up.
        weight_decay: decoupled.
        warmup_steps: updates in which the rate grows from 0.
        total_steps: updates after which the rate is 0 again.
        grad_clip: largest global norm of a gradient; 0 for none.
        compute_dtype: parameters are cast to it for the forward and backward pass (empty: as they are). Gradients come
            back in their own dtype.
        optimizer: "adamw" or "adafactor".
        moment_dtype: of AdamW's first moment (empty: the parameters' own).
        lora: which adapters are trained instead of the parameters.
        objective: what the model is trained for.
        hyper: hyperparameters of the objective that differ from its defaults.
        updates_per_epoch: for hyperparameters that move with the epochs.
        gather_once: weights are gathered over `data` once an update, not in each layer; needs the state's layout.
        interpolation: the result lies so much of the way from the start parameters to the trained ones.
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    total_steps: int
    grad_clip: float
    compute_dtype: str
    optimizer: str = "adamw"
    moment_dtype: str = ""
    lora: Lora | None = None
    objective: Objective = OBJECTIVES["pmc"]
    hyper: tuple[tuple[str, float], ...] = ()
    updates_per_epoch: int = 1
    gather_once: bool = False
    interpolation: float = 1.0

    @property
    def hyperparameters(self) -> dict[str, float]:
        """All hyperparameters of the objective, by name."""
        return hyperparameters(self.objective, self.hyper)

    @property
    def needs_start(self) -> bool:
        """Whether each update reads the parameters that the run began with."""
        return self.lora is not None or needs_start(self.objective, self.hyperparameters)

    @property
    def share(self) -> float:
        """How much of what training changed is in the result: less than all of it lies between the start parameters and
        the trained ones (WiSE-FT, Wortsman et al., arXiv 2109.01903), a negative share beyond the start.
        """
        return self.interpolation * (-self.hyperparameters["scale"] if self.objective.negated else 1.0)
