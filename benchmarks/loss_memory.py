"""How much memory an update's loss takes with a vocabulary of 128256 words: what XLA says of the compiled update.
Nothing is run, no array is made.

    python benchmarks/loss_memory.py [--layers=2] [--model=Llama-3.2-1B] [--batches=16,64]

Three ways to the same losses: logits of all positions at once, of the labels at once, and of the labels in chunks,
which is how the project does it. The model has few layers, so that its activations do not hide the logits; float32, in
which a CPU's program converts nothing.
"""

import argparse
from typing import Any

import jax
import pages
from forced import FAMILIES, make_job

from pmc_jax.data.packing import Batch
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import CPU
from pmc_jax.plan import abstract
from pmc_jax.training import update

ALL_AT_ONCE = 2**62


def make_batch(config: Any, mesh: Any, assumed: abstract.Assumed, everywhere: bool) -> Batch:
    """The abstract batch of a run; with `everywhere`, one whose positions are all labels."""
    batch = abstract.batch(config, mesh, assumed)
    if not everywhere:
        return batch
    M, R, T = batch.tokens_MRT.shape
    per_label = {name: x for name, x in batch._asdict().items() if name.endswith("_MSA")}
    return batch._replace(
        **{name: jax.ShapeDtypeStruct((M, 1, R * T), x.dtype, sharding=x.sharding) for name, x in per_label.items()}
    )


def temporary(
    raw: dict[str, Any], config: Any, assumed: abstract.Assumed, everywhere: bool, at_once: int
) -> tuple[int, Batch]:
    """Bytes the compiled update holds beyond arguments and results, and its batch."""
    mesh, shape = meshes.make_mesh(1, 1, jax.devices()[:1]), abstract.make_shape(raw, config.train.remat)
    recipe, state, base = abstract.training(shape, config, mesh, assumed)
    batch = make_batch(config, mesh, assumed, everywhere)
    model = shape.model.clone(scan=0, logits_at_once=at_once)
    compiled = update.update.lower(model, recipe, state, batch, base).compile()
    return compiled.memory_analysis().temp_size_in_bytes, batch


def line(name: str, raw: dict[str, Any], config: Any, assumed: abstract.Assumed, everywhere: bool, at_once: int) -> str:
    """One way, as a line of the table."""
    size, batch = temporary(raw, config, assumed, everywhere, at_once)
    count, vocab = batch.labels_MSA.shape[-1], raw["vocab_size"]
    chunk = min(count, max(1, at_once // vocab))
    cells = [
        str(2 * config.train.batch_size),
        name,
        str(count),
        f"{-(-count // chunk)}",
        *(f"{x / 2**30:.2f}" for x in (4 * chunk * vocab, size)),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Llama-3.2-1B", help="whose shape")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batches", default="16,64", help="forget rows an update, with as many retain rows on top")
    arguments = parser.parse_args()
    raw = abstract.read_shape(arguments.model) | {"num_hidden_layers": arguments.layers}
    config, assumed = make_job("llama", small=False).config, FAMILIES["llama"][2]
    config.model.dtype = "float32"
    ways = {
        "all positions": (True, ALL_AT_ONCE),
        "labels": (False, ALL_AT_ONCE),
        "labels, as the project does": (False, CPU.logits_at_once),
    }
    heads = [
        "rows",
        "logits of",
        "positions with logits",
        "chunks",
        "logits alive, GiB",
        "temporary memory of the update, GiB",
    ]
    print(pages.table(heads, []))
    for batch in map(int, arguments.batches.split(",")):
        config.train.batch_size = batch
        for name, way in ways.items():
            print(line(name, raw, config, assumed, *way), flush=True)


if __name__ == "__main__":
    main()
