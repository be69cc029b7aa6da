"""The table of model families, by the architecture that a `config.json` names. A new one is a file and a row here."""

from typing import Any

from pmc_jax import registry
from pmc_jax.errors import UserError
from pmc_jax.models import llama, phi
from pmc_jax.models.family import Family

FAMILIES = {
    "LlamaForCausalLM": llama.FAMILY,
    "PhiForCausalLM": phi.FAMILY,
}


def find_family(raw: dict[str, Any], name: str = "") -> Family:
    """The family that a checkpoint is read as.

    Args:
        raw: its `config.json`.
        name: the setting model.family: a key of FAMILIES, or "module:attribute" of a Family; empty = by the config's
            `architectures`.

    Raises:
        UserError: no such family; the message names those that there are.
    """
    if name:
        family = registry.resolve("model.family", name, FAMILIES)
        if not isinstance(family, Family):
            raise UserError(f"model.family={name!r}: must be a pmc_jax.models.Family, not a {type(family).__name__}")
        return family
    names = raw.get("architectures") or [f"model_type {raw.get('model_type')!r}"]
    for architecture in names:
        if architecture in FAMILIES:
            return FAMILIES[architecture]
    raise UserError(
        f"config.json: architecture {', '.join(map(str, names))} is not supported; supported: {', '.join(FAMILIES)}"
    )
