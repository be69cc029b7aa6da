"""What the save of a round costs: seconds that the run waits, and the processor's seconds, most of which the next round
lacks.

As the project writes a round, and array by array as Orbax does by default, in turn.

    python benchmarks/saving.py --checkpoint=DIR
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pages

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.methods.settings import read_training
from pmc_jax.training.checkpoint import RoundCheckpointer, group_leaves
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_state

SAVES = 8


class Plain(RoundCheckpointer):
    """Rounds written array by array, compressed."""

    def __init__(self, folder: str, keep: int):
        self.folder = Path(folder)
        self._manager = ocp.CheckpointManager(
            folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        )

    def save(self, number, state, notes):
        self._manager.save(
            number, args=ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        )


def measure(rounds: RoundCheckpointer, number: int, state) -> tuple[float, float]:
    """(seconds until `save` returns, processor seconds until all is written)."""
    begun, used = time.perf_counter(), time.process_time()
    rounds.save(number, state, {})
    waited = time.perf_counter() - begun
    rounds.wait()
    return waited, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    checkpoint = pmc_jax.load(parser.parse_args().checkpoint)
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(settings.default()), updates=40)
    state = start_state(checkpoint, recipe, seed=0)
    kinds = {"array by array, compressed": Plain, "as the project does": RoundCheckpointer}
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: kind(f"{folder}/{number}", 2) for number, (name, kind) in enumerate(kinds.items())}
        measured = {name: [] for name in kept}
        for number in range(SAVES + 1):
            for name, rounds in kept.items():
                measured[name].append(measure(rounds, number, state))
        for rounds in kept.values():
            rounds.close()
    counts = len(jax.tree.leaves(state)), len(group_leaves(state))
    rows = [
        [name, str(count), *(f"{x:.3f}" for x in np.median(of_kind[1:], axis=0))]
        for (name, of_kind), count in zip(measured.items(), counts)
    ]
    print(pages.table(["a round", "arrays", "run waits, s", "processor, s"], rows))


if __name__ == "__main__":
    main()
