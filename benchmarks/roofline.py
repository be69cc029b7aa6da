"""What a decode step and an update must do at least, and how long that takes on chips that are not here, as the
Markdown of docs/performance.md.

    python benchmarks/roofline.py [--rows=512] [--write]

The formulas are pmc_jax/plan/roofline.py's, in bfloat16: a decode step of `rows` rows whose answers have the mean
length, and an update of the published batch with the mean number of tokens. --write puts the table into the page.
"""

import argparse
import re
from pathlib import Path

import pages
from forced import FAMILIES, make_job

from pmc_jax.plan import roofline
from pmc_jax.plan.abstract import make_shape, read_shape

PAGE = Path(__file__).parents[1] / "docs/performance.md"
MODELS = {"Llama-3.2-3B": "llama", "Llama-3.2-1B": "llama", "phi-1_5": "phi"}
CHIPS = ("H200", "v5e", "v5p", "v6e")
ITEMSIZE = 2  # bytes of a bfloat16


def steps(name: str, rows: int) -> dict[str, roofline.Work]:
    """{what: its work} of one model."""
    family = MODELS[name]
    job, model = make_job(family, small=False), make_shape(read_shape(name), remat=False).model
    assumed, batch = FAMILIES[family][2], 2 * job.config.train.batch_size
    prompts = rows / job.config.sample.num_samples
    positions = assumed.prefix + batch * (assumed.prompt - assumed.prefix + assumed.answer)
    return {
        f"decode, {rows} rows": roofline.decode_work(model, rows, assumed.answer, prompts, assumed.prompt, ITEMSIZE),
        f"update, {batch} rows, {positions} tokens": roofline.update_work(
            model, positions, batch * assumed.answer, ITEMSIZE
        ),
    }


def table(rows: int) -> str:
    """A line for each model and step; the last columns are milliseconds and what bounds them."""
    heads = ["model", "step", "GFLOP", "GB", "FLOP/byte", *(f"{chip}, ms" for chip in CHIPS)]
    lines = []
    for name in MODELS:
        for step, work in steps(name, rows).items():
            peaks = [roofline.PEAKS[chip] for chip in CHIPS]
            bounds = [f"{1e3 * roofline.seconds(work, peak):.2f} {roofline.limit(work, peak)}" for peak in peaks]
            lines.append(
                [name, step, f"{work.flops / 1e9:.0f}", f"{work.bytes / 1e9:.2f}", f"{work.intensity:.0f}", *bounds]
            )
    return pages.table(heads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512, help="of the decode step")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name} too")
    given = parser.parse_args()
    lines = table(given.rows)
    print(lines)
    if given.write:
        between = re.compile(r"(<!-- roofline -->\n).*?(<!-- end -->)", re.DOTALL)
        PAGE.write_text(
            between.sub(lambda m: f"{m[1]}{lines}\n{m[2]}", PAGE.read_text(encoding="utf-8")), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
