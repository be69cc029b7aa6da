"""What one update and one decode step cost on this machine, against what its matrix products alone would take.

    python benchmarks/steps.py --checkpoint=DIR --data=DIR --preset=llama [--out=steps.json]

The bound is FLOPs over the speed of a lone float32 product of the update's size, measured here and now, beside what it is compared with.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ours import PRESETS, make_config
from rich.console import Console
from rich.table import Table

import pmc_jax
from pmc_jax import parallel, questions, sampler, train, update
from pmc_jax.draw import Warp
from pmc_jax.generate import make_generator
from pmc_jax.packing import pack
from pmc_jax.prompts import training_row

ROWS = ((8, 1), (20, 1), (20, 3), (20, 10), (40, 10))  # questions, samples each


def seconds(run: Callable, times: int = 8) -> float:
    """Median seconds of a call, after one that compiles."""
    jax.block_until_ready(run())
    found = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def product_speed(rows: int, config) -> float:
    """FLOP/s of a lone product [rows, width] x [width, mlp_width], twenty in a row."""
    x, w = (jax.random.normal(jax.random.key(0), shape) for shape in ((rows, config.width), (config.width, config.mlp_width)))
    product = jax.jit(jnp.matmul)
    return 20 * 2 * rows * config.width * config.mlp_width / seconds(lambda: [product(x, w) for _ in range(20)])


def weights(checkpoint) -> tuple[int, int]:
    """Parameters multiplied with every position: those of the layers, and those of the head."""
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in checkpoint.params.items()}
    return sum(n for k, n in count.items() if k.startswith("layer_")), checkpoint.config.vocab_size * checkpoint.config.width


def update_step(checkpoint, config, forget, retain) -> dict:
    """Seconds of one update on a typical batch, its positions, and the FLOPs of its matrix products (attention apart)."""
    text = make_generator(checkpoint, config, Warp(), 1).text
    rows = [[training_row(text, r["question"], r["answer"], 200, group=g) for r in part] for g, part in ((1, forget), (2, retain))]
    mesh, size = parallel.mesh_of(checkpoint.params), config.train.batch_size
    packing = train.start_packing(config, *rows, config.train.max_length, mesh, len(forget))
    batch = update.put_batch(pack(rows[0][:size] + rows[1][:size], packing), mesh)
    recipe = train.make_recipe(config, len(forget))
    state = [update.create_state(checkpoint.params, recipe)]

    def run():
        state[0], metrics = update.update(checkpoint.model, recipe, state[0], batch)
        return metrics

    positions, (in_layers, head) = packing.rows * packing.length, weights(checkpoint)
    real = sum(len(r.tokens) - packing.prefix for part in rows for r in part[:size]) + packing.prefix
    flops = 6 * (in_layers * positions + head * packing.labels)
    return {"seconds": seconds(run), "positions": positions, "real_positions": real, "flops": flops, "packing": packing._asdict()}


def decode_step(checkpoint, config, forget, questions_, samples) -> dict:
    """Seconds of one decode step of questions x samples rows with 64 answer slots, and the FLOPs of its matrix products."""
    generator = make_generator(checkpoint, config, Warp(config.sample.temperature, config.sample.top_k, config.sample.top_p), samples)
    texts = [r["question"] for r in forget[:questions_]]
    prompts = sampler.left_pad([generator.text.prompt(q) for q in texts], texts)
    inputs = parallel.put((prompts, np.ones(len(texts), bool)), parallel.rows(parallel.mesh_of(checkpoint.params)))
    how, shape = dict(warp=generator.warp, end_tokens=()), dict(num_samples=samples, first_slots=64, shards=1, parts=1)
    words_B3 = sampler.row_words(prompts.keys_Q, 0, samples)
    noise_CBX, rows_B = sampler.chunk_noise(0, words_B3, 0, generator.warp), jnp.arange(len(texts) * samples)
    state = [sampler.prefill(checkpoint.model, generator.params, *inputs, noise_CBX, **shape, **how)]

    def run():
        state[0] = sampler.decode_chunk(checkpoint.model, generator.params, state[0]._replace(step=jnp.int32(32)), noise_CBX, rows_B, 48, **how)
        return state[0].answers_BC

    rows = len(texts) * samples
    return {"rows": rows, "seconds": seconds(run) / 16, "flops": 2 * rows * sum(weights(checkpoint))}


def measure(checkpoint_folder: str, data: str, preset: str) -> dict:
    config = make_config(checkpoint_folder, data, preset, 0, 0)
    checkpoint = pmc_jax.load(checkpoint_folder)
    forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
    found = {"update": update_step(checkpoint, config, forget, retain)}
    found["decode"] = [decode_step(checkpoint, config, forget, q, n) for q, n in ROWS]
    found["product_flops_per_second"] = product_speed(found["update"]["positions"], checkpoint.config)
    return found


def show(found: dict) -> None:
    speed = found["product_flops_per_second"]
    table = Table(title=f"a lone float32 product: {speed / 1e9:.0f} GFLOP/s")
    for heading in ("step", "ms", "bound, ms", "share of the bound"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    u = found["update"]
    steps = {f"update, {u['positions']} positions, {u['real_positions']} of them real": u} | {f"decode, {d['rows']} rows": d for d in found["decode"]}
    for name, step in steps.items():
        bound = step["flops"] / speed
        table.add_row(name, f"{1e3 * step['seconds']:.1f}", f"{1e3 * bound:.1f}", f"{bound / step['seconds']:.0%}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--data", required=True, help="TOFU-shaped folder of JSONL files")
    parser.add_argument("--preset", required=True, choices=PRESETS)
    parser.add_argument("--out", help="JSON file for the result")
    given = parser.parse_args()
    found = measure(given.checkpoint, given.data, given.preset)
    show(found)
    if given.out:
        Path(given.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
