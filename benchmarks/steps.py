"""What one update and one decode step cost on this machine, against what its matrix products alone would take.

    python benchmarks/steps.py --checkpoint=DIR --data=DIR --preset=llama [--out=steps.json]

The bound is FLOPs over the speed of a lone float32 product of the update's size, measured here and now, beside what it
is compared with.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ours import PRESETS, make_config
from rich.console import Console
from rich.table import Table

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.data.packing import FORGET, RETAIN, Batch, Packing, Row, pack, round_up
from pmc_jax.data.prompts import training_row
from pmc_jax.distributed import meshes
from pmc_jax.methods.settings import read_batch, read_training
from pmc_jax.sampling.decode import CHUNK, decode_chunk
from pmc_jax.sampling.generate import round_sampler, text_of
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.sampling.prompts import left_pad
from pmc_jax.sampling.uniforms import row_uniforms
from pmc_jax.training import loop, update
from pmc_jax.training.batching import ExpectedRows, choose_packing, even_batches
from pmc_jax.training.settings import make_recipe, updates_per_epoch

ROWS = ((8, 1), (20, 1), (20, 3), (20, 10), (40, 10))  # questions, samples each


def in_turn(runs: list[Callable], times: int = 8) -> list[float]:
    """Median seconds of each call, after one that compiles; they take turns, so that a machine's moods meet all of
    them.
    """
    jax.block_until_ready([run() for run in runs])
    taken = np.zeros((times, len(runs)))
    for index in np.ndindex(taken.shape):
        start = time.perf_counter()
        jax.block_until_ready(runs[index[1]]())
        taken[index] = time.perf_counter() - start
    return np.median(taken, axis=0).tolist()


def seconds(run: Callable, times: int = 8) -> float:
    """Median seconds of a call, after one that compiles."""
    return in_turn([run], times)[0]


def product_speed(rows: int, config) -> float:
    """FLOP/s of a lone product [rows, width] x [width, mlp_width], twenty in a row."""
    x, w = (
        jax.random.normal(jax.random.key(0), shape)
        for shape in ((rows, config.width), (config.width, config.mlp_width))
    )
    product = jax.jit(jnp.matmul)
    return 20 * 2 * rows * config.width * config.mlp_width / seconds(lambda: [product(x, w) for _ in range(20)])


def weights(checkpoint) -> tuple[int, int]:
    """Parameters multiplied with every position: those of the layers, and those of the head."""
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in checkpoint.params.items()}
    return sum(
        n for k, n in count.items() if k.startswith("layer_")
    ), checkpoint.config.vocab_size * checkpoint.config.width


class Typical(NamedTuple):
    """A batch as a round has them: its examples, the packing it is in, and the packed batch on the device."""

    rows: list[Row]
    packing: Packing
    batch: Batch

    @property
    def positions(self) -> int:
        """Of the micro-batches that hold anything."""
        return int(self.batch.used) * self.packing.rows * self.packing.length

    @property
    def real_positions(self) -> int:
        """Those that hold a token, the shared prefix once."""
        return self.packing.prefix + sum(len(r.tokens) - self.packing.prefix for r in self.rows)


def typical_batch(checkpoint, config, forget, retain) -> Typical:
    """Of the model's own answers, here the true ones, in a packing with room for the longest that can be drawn
    (`collapse.begin`).
    """
    text, longest = text_of(checkpoint, config), config.train.max_length
    rows = [
        [training_row(text, r["question"], r["answer"], longest, group=g) for r in part]
        for g, part in ((FORGET, forget), (RETAIN, retain))
    ]
    prompts = round_up(max(r.start for r in rows[0]), 8)
    mesh = meshes.mesh_of(checkpoint.params)
    expected = ExpectedRows(tuple(rows), min(longest, prompts + config.sample.max_new_tokens), len(forget))
    packing = choose_packing(expected, read_batch(config), mesh)
    some = even_batches(list(zip(*rows)), config.train.batch_size)[0]
    return Typical(some, packing, update.put_batch(pack(some, packing), mesh))


def updating(checkpoint, recipe, batch) -> Callable:
    """A call that makes the next update on a batch."""
    step = loop.make_step(checkpoint, recipe)
    states = [update.hold_weights(update.create_state(checkpoint.params, recipe), recipe)]

    def run():
        states[0], metrics = step(states[0], batch)
        return metrics

    return run


def update_steps(checkpoint, config, forget, retain) -> list[dict]:
    """Seconds of an update on a typical batch, in the project's own number of micro-batches and in one, its positions,
    and the FLOPs of its products (attention apart).
    """
    in_layers, head = weights(checkpoint)
    updates = updates_per_epoch(len(forget), 0, config.train.batch_size)
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(config), updates)
    own, one = config, settings.changed(config, {"train.accumulate": 1})
    batches = [typical_batch(checkpoint, each, forget, retain) for each in (own, one)]
    figures = []
    for b, taken in zip(batches, in_turn([updating(checkpoint, recipe, b.batch) for b in batches])):
        flops = 6 * (in_layers * b.positions + head * int(b.batch.used) * b.packing.labels)
        shape = {"micro_batches": int(b.batch.used), "positions": b.positions, "real_positions": b.real_positions}
        figures.append(shape | {"seconds": taken, "flops": flops, "packing": b.packing._asdict()})
    return figures


def decode_step(checkpoint, config, forget, num_questions, samples) -> dict:
    """Seconds of one decode step of questions x samples rows with 64 answer slots, and the FLOPs of its matrix
    products.
    """
    sampler = round_sampler(checkpoint, config)
    texts = [r["question"] for r in forget[:num_questions]]
    prompts = left_pad([sampler.text.prompt(q) for q in texts], texts)
    inputs = meshes.put((prompts, np.ones(len(texts), bool)), meshes.row_sharding(meshes.mesh_of(checkpoint.params)))
    static, plan = dict(strategy=sampler.sampling.strategy, end_tokens=()), PrefillPlan(samples, slots=64)
    uniform_BT2 = jnp.asarray(row_uniforms(prompts.keys_Q, 0, 0, samples, CHUNK))
    state = [prefill(checkpoint.model, sampler.params, *inputs, uniform_BT2[:, :1], plan=plan, **static)[0]]

    def run():
        at_32 = state[0]._replace(step=jnp.int32(32))
        state[0] = decode_chunk(checkpoint.model, sampler.params, at_32, uniform_BT2, 48, **static)
        return state[0].tokens_BC

    rows = len(texts) * samples
    return {"rows": rows, "seconds": seconds(run) / 16, "flops": 2 * rows * sum(weights(checkpoint))}


def measure(checkpoint_folder: str, data: str, preset: str) -> dict:
    config = make_config(checkpoint_folder, data, preset, seed=0)
    checkpoint = pmc_jax.load(checkpoint_folder)
    forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
    figures = {"updates": update_steps(checkpoint, config, forget, retain)}
    figures["decode"] = [decode_step(checkpoint, config, forget, q, n) for q, n in ROWS]
    figures["product_flops_per_second"] = product_speed(figures["updates"][0]["positions"], checkpoint.config)
    return figures


def show(figures: dict) -> None:
    speed = figures["product_flops_per_second"]
    table = Table(title=f"a lone float32 product: {speed / 1e9:.0f} GFLOP/s")
    for heading in ("step", "ms", "bound, ms", "share of the bound"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    steps = {
        "update, {micro_batches} micro-batches, {positions} positions, {real_positions} of them real".format(**u): u
        for u in figures["updates"]
    }
    steps |= {f"decode, {d['rows']} rows": d for d in figures["decode"]}
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
    figures = measure(given.checkpoint, given.data, given.preset)
    show(figures)
    if given.out:
        Path(given.out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
