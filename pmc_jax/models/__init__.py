"""Model families: a config reader, a Linen module and a weight table each."""

from typing import Any, NamedTuple

from pmc_jax.errors import UserError
from pmc_jax.models import llama, phi
from pmc_jax.models.config import ModelConfig
from pmc_jax.models.layers import Cache, Decoder, KeyValue, Stream

__all__ = ["Cache", "Decoder", "Family", "KeyValue", "ModelConfig", "Stream", "find_family"]


class Family(NamedTuple):
    """One architecture: how to read its config, its module class, its weight table."""

    read_config: Any
    module: type[Decoder]
    weights: tuple[tuple[str, str, str], ...]


FAMILIES = {
    "LlamaForCausalLM": Family(llama.read_config, llama.Llama, llama.WEIGHTS),
    "PhiForCausalLM": Family(phi.read_config, phi.Phi, phi.WEIGHTS),
}


def find_family(raw: dict[str, Any]) -> Family:
    """The family of a raw Hugging Face config, by its `architectures`; any other is refused by name."""
    names = raw.get("architectures") or [f"model_type {raw.get('model_type')!r}"]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    raise UserError(
        f"config.json: architecture {', '.join(map(str, names))} is not supported; supported: {', '.join(FAMILIES)}"
    )
