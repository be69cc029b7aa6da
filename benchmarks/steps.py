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


def in_turn(runs: list[Callable], times: int = 8) -> list[float]:
    """Median seconds of each call, after one that compiles; they take turns, so that a machine's moods meet all of them."""
    jax.block_until_ready([run() for run in runs])
    found = np.zeros((times, len(runs)))
    for at in np.ndindex(found.shape):
        start = time.perf_counter()
        jax.block_until_ready(runs[at[1]]())
        found[at] = time.perf_counter() - start
    return np.median(found, axis=0).tolist()


def seconds(run: Callable, times: int = 8) -> float:
    """Median seconds of a call, after one that compiles."""
    return in_turn([run], times)[0]


def product_speed(rows: int, config) -> float:
    """FLOP/s of a lone product [rows, width] x [width, mlp_width], twenty in a row."""
    x, w = (jax.random.normal(jax.random.key(0), shape) for shape in ((rows, config.width), (config.width, config.mlp_width)))
    product = jax.jit(jnp.matmul)
    return 20 * 2 * rows * config.width * config.mlp_width / seconds(lambda: [product(x, w) for _ in range(20)])


def weights(checkpoint) -> tuple[int, int]:
    """Parameters multiplied with every position: those of the layers, and those of the head."""
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in checkpoint.params.items()}
    return sum(n for k, n in count.items() if k.startswith("layer_")), checkpoint.config.vocab_size * checkpoint.config.width


def updating(model, recipe, state, batch) -> Callable:
    """A call that makes the next update."""
    states = [state]

    def run():
        states[0], metrics = update.update(model, recipe, states[0], batch)
        return metrics

    return run


def update_steps(checkpoint, config, forget, retain) -> list[dict]:
    """Seconds of an update on a typical batch, in the project's own number of micro-batches and in one, its positions, and the FLOPs of its products
    (attention apart)."""
    text = make_generator(checkpoint, config, Warp(), 1).text
    rows = [[training_row(text, r["question"], r["answer"], 200, group=g) for r in part] for g, part in ((1, forget), (2, retain))]
    mesh, recipe = parallel.mesh_of(checkpoint.params), train.make_recipe(config, len(forget))
    some = train.even_batches(list(zip(*rows)), config.train.batch_size)[0]
    (in_layers, head), steps, found = weights(checkpoint), [], []
    for accumulate in (config.train.accumulate, 1):
        config.train.accumulate = accumulate
        packing = train.start_packing(config, *rows, config.train.max_length, mesh, len(forget))
        batch = update.put_batch(pack(some, packing), mesh)
        steps.append(updating(checkpoint.model, recipe, update.create_state(checkpoint.params, recipe), batch))
        positions, labels = (int(batch.used) * each for each in (packing.rows * packing.length, packing.labels))
        real = sum(len(r.tokens) - packing.prefix for r in some) + packing.prefix
        flops = 6 * (in_layers * positions + head * labels)
        found.append({"micro_batches": int(batch.used), "positions": positions, "real_positions": real, "flops": flops, "packing": packing._asdict()})
    return [kept | {"seconds": s} for kept, s in zip(found, in_turn(steps))]


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
    found = {"updates": update_steps(checkpoint, config, forget, retain)}
    found["decode"] = [decode_step(checkpoint, config, forget, q, n) for q, n in ROWS]
    found["product_flops_per_second"] = product_speed(found["updates"][0]["positions"], checkpoint.config)
    return found


def show(found: dict) -> None:
    speed = found["product_flops_per_second"]
    table = Table(title=f"a lone float32 product: {speed / 1e9:.0f} GFLOP/s")
    for heading in ("step", "ms", "bound, ms", "share of the bound"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    steps = {"update, {micro_batches} micro-batches, {positions} positions, {real_positions} of them real".format(**u): u for u in found["updates"]}
    steps |= {f"decode, {d['rows']} rows": d for d in found["decode"]}
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
