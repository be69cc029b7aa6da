"""Writes what runs of known checkpoints take into docs/models.md, on TPU slices that are not here.

    python benchmarks/families.py

Every cell is `pmc-jax plan --compile=none` at the published settings of Llama with remat: float32 weights under
bfloat16 compute, or adapters of rank 16 over bfloat16 weights. Needs libtpu.
"""

import re
from pathlib import Path

import pages
import scale
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.plan import run, topology

PAGE = Path(__file__).parents[1] / "docs/models.md"
# One of each family, and further ones.
MODELS = {
    "Llama-3.2-3B": "LlamaForCausalLM",
    "phi-1_5": "PhiForCausalLM",
    "Qwen2.5-7B": "Qwen2ForCausalLM",
    "Qwen3-8B": "Qwen3ForCausalLM",
    "Mistral-7B-v0.1": "MistralForCausalLM",
    "OLMo-2-1124-7B": "Olmo2ForCausalLM",
    "Phi-3-mini-4k": "",
    "phi-4": "Phi3ForCausalLM",
    "gemma-2-9b": "Gemma2ForCausalLM",
    "gemma-3-12b": "Gemma3ForConditionalGeneration",
}
SLICES = {"v5e-8": "v5e:2x4", "v5e-16": "v5e:4x4", "v6e-16": "v6e:4x4"}
SHORT = "v5e-16"  # in the table of families
WAYS = {"all weights": {"model.dtype": "float32"}, "adapters": {"lora.rank": 16}}


def plan(config: ConfigDict, where: str) -> dict:
    return run.plan(config, topology.parse_topology(where), scale.ASSUMED, "none")


def row(model: str) -> list[str]:
    """Parameters, and a cell for each way and slice: the mesh and the memory of the fullest chip."""
    cells, count = [], 0
    for changes in WAYS.values():
        config = settings.changed(scale.make_config(model), changes)
        for where in SLICES.values():
            found = plan(config, where)
            used, mesh, count = max(found["memory"]["used"].values()), found["mesh"], found["parameters"]
            fits = f"{used / 2**30:.1f} GiB, {mesh['data']} x {mesh['model']}"
            cells.append(fits if found["memory"]["fits"] else f"no: {used / 2**30:.0f} GiB")
    return [model, f"{count / 1e9:.2f}B", *cells]


def short(cells: list[str]) -> str:
    """What stands in the table of families: one slice, all weights and adapters."""
    first = 2 + list(SLICES).index(SHORT)
    whole, adapters = (cells[first + i * len(SLICES)].split(",")[0] for i in range(len(WAYS)))
    return f"{cells[0]}: {whole}; adapters {adapters}"


def main() -> None:
    headings = ["model", "parameters", *(f"{way}, {name}" for way in WAYS for name in SLICES)]
    rows = {model: row(model) for model in MODELS}
    table = pages.table(headings, list(rows.values()))
    print(table)
    page = re.sub(r"(<!-- memory -->\n).*?(\n<!-- end -->)", rf"\1{table}\2", PAGE.read_text(), flags=re.DOTALL)
    for model, architecture in MODELS.items():
        if architecture:
            page = re.sub(rf"(\n\| `{architecture}`.*\| )[^|\n]*( \|\n)", rf"\1{short(rows[model])}\2", page)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
