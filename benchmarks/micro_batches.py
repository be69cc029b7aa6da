"""What an update of the preset `removal` costs, cut into several numbers of micro-batches.

    python benchmarks/micro_batches.py --checkpoint=DIR --data=DIR [--questions=20] [--accumulate=5,4,2]

The last rows of `full` are to be forgotten, and the others stay. Batches are those of a first epoch, with the true
answers in the place of the model's own. Prints, for each number: blocks of a micro-batch, positions of an update, those
that hold a token, and the processor's seconds of an update: means over all batches of the epoch but the first.
"""

import argparse
import time

import jax
import numpy as np
from pages import table

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET, REFUSAL, RETAIN, Packing, Row, pack
from pmc_jax.data.prompts import training_row
from pmc_jax.data.refusals import load_refusals
from pmc_jax.data.splits import load_split
from pmc_jax.distributed import meshes
from pmc_jax.methods.schedule import draw_retain_rows
from pmc_jax.methods.settings import read_batch, read_training
from pmc_jax.runs.presets import load_preset
from pmc_jax.sampling.generate import text_of
from pmc_jax.training import loop, update
from pmc_jax.training.batching import ExpectedRows, choose_packing, even_batches
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_params


def example_rows(checkpoint, config, data: str, questions: int) -> tuple[list[Row], ...]:
    """Training rows: to forget, to keep, and refusals of a question."""
    text, full = text_of(checkpoint, config), load_split(data, "full")

    def rows(examples, group):
        return [training_row(text, r["question"], r["answer"], config.train.max_length, group) for r in examples]

    refusals = [{"question": full[-1]["question"], "answer": answer} for answer in load_refusals(config.pmc.refusals)]
    return rows(full[-questions:], FORGET), rows(full[:-questions], RETAIN), rows(refusals, REFUSAL)


def measure(checkpoint, config, rows: tuple[list[Row], ...], epoch: list[list[Row]]) -> list[str]:
    """A row of the table. epoch: the batches of an epoch."""
    forget, retain, refusals = rows
    groups = (forget, *[retain] * config.pmc.retain_rows, refusals)
    longest, mesh = max(len(row.tokens) for group in groups for row in group), meshes.mesh_of(checkpoint.params)
    packing: Packing = choose_packing(ExpectedRows(groups, longest, len(forget)), read_batch(config), mesh)
    batches = [update.put_batch(pack(batch, packing), mesh) for batch in epoch]
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(config), len(epoch))
    step = loop.make_step(checkpoint, recipe, start_params(checkpoint, recipe))
    state = update.hold_weights(update.create_state(checkpoint.params, recipe), recipe)
    for number, batch in enumerate(batches):
        if number == 1:
            jax.block_until_ready(state)
            start = time.process_time()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds = (time.process_time() - start) / (len(batches) - 1)
    positions = np.mean([int(batch.used) for batch in batches]) * packing.rows * packing.length
    real = np.mean([sum(len(row.tokens) - packing.prefix for row in batch) for batch in epoch])
    return [str(packing.micro_batches), str(packing.rows), f"{positions:.0f}", f"{real:.0f}", f"{seconds:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--data", required=True, help="TOFU-shaped folder of JSONL files")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--accumulate", default="0", help="numbers of micro-batches; 0 = the project's own choice")
    given = parser.parse_args()
    checkpoint, config = pmc_jax.load(given.checkpoint), load_preset("removal")
    rows = example_rows(checkpoint, config, given.data, given.questions)
    forget, retain, refusals = rows
    every = np.arange(given.questions)
    groups = [forget, *(draw_retain_rows(0, 0, every, retain, n) for n in range(config.pmc.retain_rows))]
    groups.append([refusals[q % len(refusals)] for q in every])
    epoch = even_batches(list(zip(*groups)), config.train.batch_size)
    told = [
        measure(checkpoint, settings.changed(config, {"train.accumulate": int(number)}), rows, epoch)
        for number in given.accumulate.split(",")
    ]
    headings = ["micro-batches", "blocks each", "positions", "of them real", "CPU seconds an update"]
    print(table(headings, told))


if __name__ == "__main__":
    main()
