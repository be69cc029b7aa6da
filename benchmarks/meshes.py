"""Do meshes draw what one device draws? A real checkpoint on 8 virtual devices, float32: samples that are the same,
log-probabilities.

    python benchmarks/meshes.py --checkpoint=DIR --data=DIR [--meshes 8x1 2x4] [--seeds=2] [--samples=25]
    [--out=meshes.json]

Settings are those of benchmarks/ours.py. Log-probabilities are of the tokens that one device drew with the first seed,
each given the ones before it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from ours import PRESETS, make_config
from rich.console import Console
from rich.table import Table

import pmc_jax
from pmc_jax.data import questions
from pmc_jax.data.packing import FORGET, Row
from pmc_jax.distributed.meshes import make_mesh
from pmc_jax.errors import UserError
from pmc_jax.evaluate.likelihood import token_scores
from pmc_jax.sampling.generate import round_sampler
from pmc_jax.sampling.prompts import left_pad

DEVICES = 8
CLOSE = 1e-5
MESHES = ("8x1", "4x2", "2x4", "1x8")  # data x model


class Drawn(NamedTuple):
    """What a mesh drew: [seed][question][sample] -> token ids; and what it takes the tokens of one device for, one
    float32 array a sample.
    """

    tokens: list[list[list[list[int]]]]
    log_probs: list[np.ndarray]


def draw(
    checkpoint: str, config: ConfigDict, mesh: Mesh, seeds: int, given: list[list[list[int]]] | None = None
) -> Drawn:
    """The samples of every seed for the questions to forget, and the log-probabilities of those given (of its own first
    ones when None).
    """
    sampler = round_sampler(pmc_jax.load(checkpoint, mesh=mesh), config)
    texts = [row["question"] for row in questions.load_forget(config.data)]
    prompts = [sampler.text.prompt(q) for q in texts]
    tokens = [sampler.with_sampling(seed=seed).tokens(left_pad(prompts, texts)) for seed in range(seeds)]
    rows = [
        Row(prompt + answer, len(prompt), FORGET)
        for prompt, samples in zip(prompts, given or tokens[0])
        for answer in samples
    ]
    scores = token_scores(sampler.checkpoint.model, sampler.checkpoint.params, rows)
    return Drawn(tokens, [s.log_probs for s in scores])


def compare(one: Drawn, other: Drawn) -> dict[str, Any]:
    """Samples in all and those that differ: (seed, question, sample) and the position of the first other token.
    Distances of log p: the largest, and the share that is at most CLOSE.
    """
    differ, count = [], 0
    for seed, (here, there) in enumerate(zip(one.tokens, other.tokens)):
        for question, pairs in enumerate(zip(here, there)):
            for sample, (a, b) in enumerate(zip(*pairs)):
                count += 1
                if a != b:
                    first = next(i for i in range(max(len(a), len(b))) if a[i : i + 1] != b[i : i + 1])
                    differ.append([seed, question, sample, first])
    apart = np.abs(np.concatenate(one.log_probs) - np.concatenate(other.log_probs))
    return {"samples": count, "differ": differ, "apart": float(apart.max()), "within": float(np.mean(apart <= CLOSE))}


def measure(checkpoint: str, data: str, preset: str, meshes: list[str], seeds: int, samples: int) -> dict[str, Any]:
    """{mesh: what `compare` finds, or why the model refuses it}."""
    config = make_config(checkpoint, data, preset, seed=0)
    config.sample.num_samples = samples
    one = draw(checkpoint, config, make_mesh(1, 1, jax.devices()[:1]), seeds)
    by_mesh: dict[str, Any] = {}
    for name in meshes:
        try:
            by_mesh[name] = compare(
                one, draw(checkpoint, config, make_mesh(*map(int, name.split("x"))), seeds, one.tokens[0])
            )
        except UserError as error:
            by_mesh[name] = str(error)
    return by_mesh


def show(by_mesh: dict[str, Any]) -> None:
    """One line a mesh."""
    table = Table(title=f"{DEVICES} virtual devices against one")
    for heading in ("data x model", "samples", "the same", "share", "log p at most apart", f"within {CLOSE:.0e}"):
        table.add_column(heading, justify="left" if heading == "data x model" else "right")
    for mesh, f in by_mesh.items():
        if isinstance(f, str):
            table.add_row(mesh, "refused")
            continue
        same = f["samples"] - len(f["differ"])
        table.add_row(
            mesh, str(f["samples"]), str(same), f"{same / f['samples']:.3%}", f"{f['apart']:.1e}", f"{f['within']:.2%}"
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--data", required=True, help="TOFU-shaped folder of JSONL files")
    parser.add_argument("--preset", default="llama", choices=PRESETS)
    parser.add_argument("--meshes", nargs="+", default=MESHES, choices=MESHES)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=25, help="of each question, for each seed")
    parser.add_argument("--out", help="JSON file for the result")
    given = vars(parser.parse_args())
    out = given.pop("out")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    by_mesh = measure(**given)
    show(by_mesh)
    if out:
        Path(out).write_text(json.dumps(by_mesh, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
