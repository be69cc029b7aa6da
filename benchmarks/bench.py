"""`make bench`: PMC by pmc_jax against the same algorithm written plainly on torch + transformers, in one run, as ratios.

The sides run in turn, seed by seed, in processes of their own, each with the whole machine. Machines are shared and noisy: quote the ratios. How many
answers a run draws depends on when questions are solved, so that single seeds differ by half: compare the means of several.

    python benchmarks/bench.py [--presets=llama,phi] [--sizes=0,8] [--seeds=0,1,2] [--shared=../shared] [--out=bench.json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # as in the Makefile, for both sides
CHECKPOINTS = {"llama": "tofu-tiny-llama-instruct", "phi": "tofu-tiny-phi"}


def run_side(script: str, checkpoint: Path, data: Path, preset: str, *more: str) -> dict:
    """Run one side to the end and return its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, HERE / script, f"--checkpoint={checkpoint}", f"--data={data}", f"--preset={preset}", f"--out={out}", *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=HUGE_PAGES | os.environ)
        return json.loads(out.read_text())


def run_sides(checkpoint: Path, data: Path, preset: str, sizes: list[str], seeds: list[str]) -> dict[str, list[dict]]:
    """{side: its results, one a seed}; the yardstick is the first side."""
    sides = {"yardstick": ("yardstick.py",)} | {
        "round = all" if size == "0" else f"round = {size}": ("ours.py", f"--set=pmc.questions_per_round={size}") for size in sizes
    }
    found: dict[str, list[dict]] = {name: [] for name in sides}
    for seed in seeds:
        for name, (script, *more) in sides.items():
            found[name].append(run_side(script, checkpoint, data, preset, f"--seed={seed}", *more))
            print(f"{preset}, seed {seed}, {name}: unlearning {figures(found[name][-1])['unlearning, s']:.1f} s", file=sys.stderr, flush=True)
    return found


def figures(result: dict) -> dict[str, float]:
    """The figures that are compared. The original answers come with the evaluation before; compilation is in the whole, not in the rates.

    An answer that our side stopped drawing, since it could not be kept, counts as an answer, and with the tokens that were drawn.
    """
    seconds, counts = result["seconds"], result["counts"]
    return {
        "sampling, answers/s": counts["answers"] / seconds["sample"],
        "sampling, drawn tokens/s": counts["answer_tokens"] / seconds["sample"],
        "updates, rows/s": counts["update_rows"] / seconds["update"],
        "evaluation, s": seconds["evaluate"],
        "unlearning, s": seconds["unlearn"] - seconds.get("references", 0.0),
        "  of which compile": seconds.get("compile", 0.0),
        "  sample": seconds["sample"],
        "  score": seconds["score"],
        "  update": seconds["update"],
        "  save": seconds.get("save", 0.0),
        "answers sampled": counts["answers"],
        "tokens per whole answer": counts["tokens_per_answer"],
        "UQ before": result["before"]["unlearn_quality"],
        "UQ after": result["after"]["unlearn_quality"],
        "utility before": result["before"]["utility"],
        "utility after": result["after"]["utility"],
    }


class Figure(NamedTuple):
    """Mean and standard deviation over seeds."""

    mean: float
    spread: float


def over_seeds(results: list[dict]) -> dict[str, Figure]:
    """The figures of one side."""
    found = [figures(result) for result in results]
    spread = statistics.stdev if len(found) > 1 else lambda _: 0.0
    return {name: Figure(statistics.fmean(of_seeds := [f[name] for f in found]), spread(of_seeds)) for name in found[0]}


def differs(a: dict[str, Figure], b: dict[str, Figure]) -> list[str]:
    """Which figures of the two sides differ beyond sampling noise: then a ratio of their times means nothing."""
    limits = {
        "tokens per whole answer": 0.2 * a["tokens per whole answer"].mean,
        "UQ before": 1.0,
        "utility before": 1.0,
        "UQ after": 8.0,
        "utility after": 5.0,
    }
    return [f"{name}: {a[name].mean:.1f} and {b[name].mean:.1f}" for name, limit in limits.items() if abs(a[name].mean - b[name].mean) > limit]


def show(title: str, yardstick: dict[str, Figure], ours: dict[str, dict[str, Figure]]) -> Table:
    """A table of figures and ratios."""
    table = Table(title=title)
    for heading in ("", "yardstick", *[x for name in ours for x in (name, "ratio")]):
        table.add_column(heading, justify="right" if heading else "left")

    def cell(figure: Figure) -> str:
        return f"{figure.mean:.1f}" + (f" ± {figure.spread:.1f}" if figure.spread else "")

    for name, value in yardstick.items():
        cells = [cell(value)]
        for column in ours.values():
            ratio = column[name].mean / value.mean if value.mean else 0.0
            faster = ratio if name.endswith("/s") else 1 / ratio if name.endswith(", s") else None
            cells += [cell(column[name]), f"{faster:.1f}x" if faster else ""]
        table.add_row(name, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="llama,phi")
    parser.add_argument("--sizes", default="0,8", help="questions per round of our side; 0 = all, 8 = the published algorithm")
    parser.add_argument("--seeds", default="0", help="of both sides")
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared", help="folder with checkpoints/ and tofu-mini/")
    parser.add_argument("--out", help="JSON file for all results")
    given = parser.parse_args()
    data, results, trouble = given.shared / "tofu-mini", {}, []
    if not data.is_dir():
        parser.error(f"{data}: no such folder; --shared names the folder that holds checkpoints/ and tofu-mini/")
    for preset in given.presets.split(","):
        checkpoint = given.shared / "checkpoints" / CHECKPOINTS[preset]
        results[preset] = run_sides(checkpoint, data, preset, given.sizes.split(","), given.seeds.split(","))
        yardstick, *ours = columns = {name: over_seeds(found) for name, found in results[preset].items()}
        title = f"{preset}: the yardstick against pmc_jax" + (f", means of seeds {given.seeds} ± their spread" if "," in given.seeds else "")
        Console().print(show(title, columns[yardstick], {name: columns[name] for name in ours}))
        trouble += [f"{preset}, {name}: {line}" for name in ours for line in differs(columns[yardstick], columns[name])]
        if given.out:
            Path(given.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if trouble:
        sys.exit("the two sides do not do the same thing:\n" + "\n".join(trouble))


if __name__ == "__main__":
    main()
