"""Writes the tables of docs/scale.md: models on TPU slices and GPUs that are not here.

    python benchmarks/scale.py [--compile MODEL@TOPOLOGY ...] [--tables gpus ...]

Every cell is `pmc-jax plan`. Cells that were compiled are kept in docs/scale/*.json, and `--compile` makes more of them
(minutes each, best on an idle machine); the others are estimates of the same command. Needs libtpu, but for the
table `gpus`.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pages
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.plan import run, topology
from pmc_jax.plan.abstract import Assumed

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "docs/scale", ROOT / "docs/scale.md"
MODELS = ("Llama-3.2-1B", "Llama-3.2-3B", "Llama-3.1-8B", "Llama-3.1-70B", "phi-1_5")
SLICES = {
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5p-64": "v5p:2x4x4",
    "v6e-64": "v6e:8x8",
    "2 x v5e-16": "2*v5e:4x4",
}
GROWTH = ("v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16")
ASSUMED = Assumed(400, 36, 64, 45)
GPUS = ("h100:1", "h100:8", "h200:8", "a100:8")
OWN = {("Llama-3.1-70B", "v5p:2x4x4"): {"train.gather_once": True}}  # there is room for it
ADAPTERS = {"lora.rank": 16}
TRAINED = {  # on GPUs, with what is trained there
    "Llama-3.2-3B, all weights": ("Llama-3.2-3B", {"model.dtype": "float32"}),
    "Llama-3.1-8B, all weights": ("Llama-3.1-8B", {"model.dtype": "float32"}),
    "the same, bfloat16 weights": ("Llama-3.1-8B", {"model.dtype": "bfloat16"}),
    "Llama-3.1-70B, adapters": ("Llama-3.1-70B", ADAPTERS | {"model.dtype": "float32"}),
    "the same, bfloat16 weights under them": ("Llama-3.1-70B", ADAPTERS | {"model.dtype": "bfloat16"}),
}


def make_config(model: str) -> ConfigDict:
    """The published settings of the model's family, bfloat16 throughout, with remat."""
    published = {"sample.temperature": 1.25, "sample.num_samples": 5, "train.batch_size": 64} if "phi" in model else {}
    own = {"model.path": model, "model.dtype": "bfloat16", "train.remat": True}
    return settings.changed(settings.default(), own | published)


def file_of(model: str, where: str) -> Path:
    return KEPT / f"{model}_{where.replace(':', '_').replace('*', 'x')}.json"


def cell(model: str, where: str, compiling: str = "none") -> dict[str, Any]:
    """The plan of one model on one slice: a compiled one where there is any."""
    file = file_of(model, where)
    if compiling == "none" and file.exists():
        return json.loads(file.read_text())
    config = settings.changed(make_config(model), OWN.get((model, where), {}))
    found = run.plan(config, topology.parse_topology(where), ASSUMED, compiling)
    if compiling != "none":
        KEPT.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def short(found: dict[str, Any]) -> str:
    """One cell of the first table."""
    used, hbm, mesh = max(found["memory"]["used"].values()), found["memory"]["hbm"], found["mesh"]
    mark = "" if found["compiled"] == "none" else "**"
    if not found["memory"]["fits"]:
        return f"{mark}no{mark}: {used / 2**30:.0f} of {hbm / 2**30:.0f} GiB"
    return f"{mark}{mesh['data']} x {mesh['model']}, {used / 2**30:.1f} GiB, {found['seconds']['round']:.1f} s{mark}"


def fits_table() -> str:
    return pages.table(
        ["model", *SLICES], [[model, *(short(cell(model, where)) for where in SLICES.values())] for model in MODELS]
    )


def gpus_table() -> str:
    def plan(model: str, changes: dict[str, Any], where: str) -> dict[str, Any]:
        config = settings.changed(make_config(model), changes)
        return run.plan(config, topology.parse_topology(where), ASSUMED, "none")

    rows = [[name, *(short(plan(*what, where)) for where in GPUS)] for name, what in TRAINED.items()]
    return pages.table(["model", *(where.upper().replace(":", " x ") for where in GPUS)], rows)


def growth_table(model: str = "Llama-3.1-8B") -> str:
    rows, first = [], None
    for where in GROWTH:
        config = make_config(model)
        found = run.plan(config, topology.parse_topology(where), ASSUMED, "none")
        s, chips = found["seconds"], found["chips"]
        cost = chips * s["round"]
        first = first or cost
        mesh = f"{found['mesh']['data']} x {found['mesh']['model']}" + " (does not fit)" * (not found["memory"]["fits"])
        rows.append(
            [str(chips), mesh, f"{s['sample']:.1f}", f"{s['update']:.1f}", f"{s['round']:.1f}", f"{cost / first:.1f}x"]
        )
    return pages.table(["chips", "mesh", "sampling, s", "updates, s", "round, s", "chip-seconds a round"], rows)


def programs_table() -> str:
    rows = []
    for file in sorted(KEPT.glob("*.json")):
        found = json.loads(file.read_text())
        for name, p in found["programs"].items():
            r = p["roofline"]
            where = f"{found['model']} on {found['topology']}, {found['mesh']['data']} x {found['mesh']['model']}"
            numbers = [f"{p['temporary'] / 2**30:.2f}", f"{p['flops'] / 1e9:.0f}", f"{p['bytes'] / 1e9:.1f}"]
            times = [f"{1e3 * x:.2f}" for x in (p["optimal_seconds"], r["products"], r["memory"], r["collectives"])]
            rows.append([where, name, *numbers, *times, f"{p['float32_products']:.0f}", str(p["weight_gathers"])])
    times = ["operations, ms", "products, ms", "memory, ms", "collectives, ms"]
    return pages.table(
        ["what", "program", "temporary, GiB", "GFLOP", "GB", *times, "float32 products", "weights gathered"], rows
    )


def collectives_table(model: str = "Llama-3.2-3B", where: str = "v5e:2x4") -> str:
    found, rows = cell(model, where), []
    for name, p in found.get("programs", {}).items():
        heavy = sorted(p["collectives"], key=lambda c: -c["count"] * c["bytes"])
        rows += [
            [name, c["kind"], str(c["count"]), f"{c['bytes'] / 1e6:.2f}", str(c["group"])]
            for c in heavy
            if c["count"] * c["bytes"] > 1e6
        ]
    return pages.table(["program", "kind", "times", "MB each", "chips"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {
        "fits": fits_table,
        "gpus": gpus_table,
        "growth": growth_table,
        "programs": programs_table,
        "collectives": lambda: collectives_table("Llama-3.2-3B", "v5e:2x4"),
    }
    parser.add_argument("--compile", nargs="*", default=[], help="cells to compile first, as Llama-3.2-3B@v5e:2x4")
    parser.add_argument("--tables", nargs="*", default=list(tables), choices=tables, help="which are written; all")
    asked = parser.parse_args()
    for pair in asked.compile:
        cell(*pair.split("@"), "whole")
    page = PAGE.read_text()
    for name in asked.tables:
        make = tables[name]
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, make=make: m[1] + make() + m[2], page, flags=re.DOTALL
        )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
