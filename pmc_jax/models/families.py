"""The table of model families, by the architecture that a `config.json` names. A new one is a file and a row here."""

import re
from typing import Any

from pmc_jax import registry
from pmc_jax.errors import UserError
from pmc_jax.models import gemma2, gemma3, llama, mistral, olmo2, phi, phi3, qwen2, qwen3
from pmc_jax.models.family import Family

FAMILIES = {
    "LlamaForCausalLM": llama.FAMILY,
    "PhiForCausalLM": phi.FAMILY,
    "Qwen2ForCausalLM": qwen2.FAMILY,
    "Qwen3ForCausalLM": qwen3.FAMILY,
    "MistralForCausalLM": mistral.FAMILY,
    "MinistralForCausalLM": mistral.FAMILY,
    "Olmo2ForCausalLM": olmo2.FAMILY,
    "Olmo3ForCausalLM": olmo2.FAMILY,
    "Phi3ForCausalLM": phi3.FAMILY,
    "Gemma2ForCausalLM": gemma2.FAMILY,
    "Gemma3ForCausalLM": gemma3.FAMILY,
    "Gemma3ForConditionalGeneration": gemma3.MULTIMODAL,
}

# What is not supported of other architectures, by what their names hold.
NOT_SUPPORTED = (
    (re.compile(r"(?i:moe)|Mixtral|Dbrx|Deepseek|GptOss|Llama4"), "a mixture of experts"),
    (
        re.compile(r"Mamba|Jamba|Zamba|Rwkv|Bamba|Hybrid|Next|Qwen3_5|Qwen3\.5|Lfm|Falcon_?H1"),
        "layers that are not attention",
    ),
    (re.compile(r"Gemma3n|Gemma4"), "a Gemma with parts of its own in every layer"),
    (re.compile(r"ForConditionalGeneration|Vision|VL"), "a model of more than text"),
)


def find_family(raw: dict[str, Any], name: str = "") -> Family:
    """The family that a checkpoint is read as.

    Args:
        raw: its `config.json`.
        name: the setting model.family: a key of FAMILIES, or "module:attribute" of a Family; empty = by the config's
            `architectures`.

    Raises:
        UserError: no such family, or a quantised checkpoint; the message names what is supported.
    """
    if quantised := raw.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"config.json: the checkpoint is quantised ({method}), which cannot be trained; give the float32, bfloat16 "
            "or float16 checkpoint that it was made from"
        )
    if name:
        family = registry.resolve("model.family", name, FAMILIES)
        if not isinstance(family, Family):
            raise UserError(f"model.family={name!r}: must be a pmc_jax.models.Family, not a {type(family).__name__}")
        return family
    names = raw.get("architectures") or [f"model_type {raw.get('model_type')!r}"]
    for architecture in names:
        if architecture in FAMILIES:
            return FAMILIES[architecture]
    named = ", ".join(map(str, names))
    reason = next((f" ({reason})" for pattern, reason in NOT_SUPPORTED if pattern.search(named)), "")
    raise UserError(f"config.json: architecture {named} is not supported{reason}; supported: {supported()}")


def supported() -> str:
    """The architectures of the table, in few words."""
    short = [name.removesuffix("ForCausalLM") for name in FAMILIES if name.endswith("ForCausalLM")]
    whole = [name for name in FAMILIES if not name.endswith("ForCausalLM")]
    return f"{', '.join(short)} (each of them ...ForCausalLM), {', '.join(whole)}"
