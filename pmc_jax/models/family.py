"""What a model family is: how its config is read, and where its parameters stand in a checkpoint."""

import dataclasses
from collections.abc import Callable
from typing import Any

from pmc_jax.models.config import ModelConfig
from pmc_jax.models.decoder import Decoder

# (checkpoint name, parameter path, checkpoint axes -> our axes), as weights.py describes it.
WeightRow = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        read_config: a Hugging Face `config.json` -> ModelConfig; raises UserError for what is not supported.
        weights: a row for each parameter that a model of this family may have.
        module: the Linen module; a Decoder with another block, where ModelConfig's switches do not do.
        carried: beginnings of the names of tensors that are not the decoder's, such as a vision tower's. An export
            holds them as they are in the source.
    """

    read_config: Callable[[dict[str, Any]], ModelConfig]
    weights: tuple[WeightRow, ...]
    module: type[Decoder] = Decoder
    carried: tuple[str, ...] = ()

    def make_model(self, raw: dict[str, Any], remat: bool = False) -> Decoder:
        """The model of a `config.json`, without parameters."""
        return self.module(self.read_config(raw), remat=remat)
