"""Models that are refused by name, in one line that says what is supported."""

import pytest

from pmc_jax.errors import UserError
from pmc_jax.models import find_family

OTHERS = {
    "a mixture of experts": "Mixtral Qwen2Moe Qwen3Moe Qwen3_5Moe PhiMoE Olmoe DeepseekV3 GptOss Dbrx",
    "layers that are not attention": "Mamba Mamba2 FalconMamba Jamba Bamba Zamba2 Rwkv Qwen3Next Qwen3_5 OlmoHybrid",
    "a Gemma with parts of its own": "Gemma3n Gemma4",
}


def refusal(raw: dict) -> str:
    with pytest.raises(UserError) as caught:
        find_family(raw)
    message = str(caught.value)
    assert "\n" not in message and len(message) <= 300
    return message


@pytest.mark.parametrize(("reason", "name"), [(r, name) for r, names in OTHERS.items() for name in names.split()])
def test_other_architectures(reason, name):
    for ending in ("ForCausalLM", "ForConditionalGeneration"):
        message = refusal({"architectures": [name + ending]})
        assert f"{name}{ending} is not supported ({reason}" in message
        assert "supported: Llama, Phi, Qwen2, Qwen3, Mistral, Ministral, Olmo2, Olmo3, Phi3, Gemma2, Gemma3 " in message


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3MoeForCausalLM"])
def test_quantised_checkpoints(method, architecture):
    message = refusal({"architectures": [architecture], "quantization_config": {"quant_method": method, "bits": 4}})
    assert f"quantised ({method})" in message and "give the float32, bfloat16 or float16 checkpoint" in message


def test_a_quantisation_without_a_name():
    for value in ({"bits": 4}, "int8"):
        raw = {"architectures": ["LlamaForCausalLM"], "quantization_config": value}
        assert f"quantised ({value if isinstance(value, str) else 'unknown'})" in refusal(raw)
