"""Writes what a run of a known checkpoint of each family takes into the table of docs/models.md.

    python benchmarks/families.py [MODEL ...]

Each is `pmc-jax plan --compile=none` on 16 chips of a v5e that are not here, at the published settings of Llama with
remat: float32 weights under bfloat16 compute, or adapters of rank 16 over bfloat16 weights. Needs libtpu.
"""

import re
import sys
from pathlib import Path

import scale

from pmc_jax import config as settings
from pmc_jax.plan import run, topology

PAGE = Path(__file__).parents[1] / "docs/models.md"
SLICE = "v5e:4x4"
MODELS = {
    "Llama-3.2-3B": "LlamaForCausalLM",
    "phi-1_5": "PhiForCausalLM",
    "Qwen2.5-7B": "Qwen2ForCausalLM",
    "Qwen3-8B": "Qwen3ForCausalLM",
    "Mistral-7B-v0.1": "MistralForCausalLM",
    "OLMo-2-1124-7B": "Olmo2ForCausalLM",
    "phi-4": "Phi3ForCausalLM",
    "gemma-2-9b": "Gemma2ForCausalLM",
    "gemma-3-12b": "Gemma3ForConditionalGeneration",
}
WAYS = {"": {"model.dtype": "float32"}, "; adapters ": {"lora.rank": 16}}


def cell(model: str) -> str:
    """Parameters, and the memory of the fullest chip, trained whole and by adapters."""
    text = ""
    for words, changes in WAYS.items():
        config = settings.changed(scale.make_config(model), changes)
        found = run.plan(config, topology.parse_topology(SLICE), scale.ASSUMED, "none")
        text = text or f"{model}, {found['parameters'] / 1e9:.2f}B: "
        used = max(found["memory"]["used"].values()) / 2**30
        text += words + f"{used:.1f} GiB" + " (does not fit)" * (not found["memory"]["fits"])
    return text


def main() -> None:
    for model in sys.argv[1:] or MODELS:
        text = cell(model)
        print(text, flush=True)
        row = rf"(\n\| `{MODELS[model]}`.*\| )[^|\n]*( \|\n)"
        PAGE.write_text(re.sub(row, lambda m, text=text: m[1] + text + m[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
