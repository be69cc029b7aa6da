"""`make bench`: PMC by pmc_jax against the same algorithm written plainly on torch + transformers, in one run, as
ratios.

The sides run in turn, seed by seed, in processes of their own, each with the whole machine. Machines are shared and
noisy: quote the ratios. How many answers a run draws depends on when questions are solved, so that single seeds differ
by half: compare the means of several.

    python benchmarks/bench.py [--presets=llama,phi] [--sizes=0,8] [--seeds=0,1,2] [--shared=../shared]
    [--out=bench.json]

A model of one's own in a preset's place, and the unlearned models kept: --presets=smollm2 --checkpoint=FOLDER
--keep=FOLDER.

What other settings change, without the yardstick: --alone --sizes=0 --also train.epochs=8 --also sample.num_samples=5
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
        command = [
            sys.executable,
            HERE / script,
            f"--checkpoint={checkpoint}",
            f"--data={data}",
            f"--preset={preset}",
            f"--out={out}",
            *more,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=HUGE_PAGES | os.environ)
        return json.loads(out.read_text())


def list_sides(sizes: list[str], also: list[str], alone: bool) -> dict[str, list[str]]:
    """{side: its script and flags}. The first one is what the others are held against: the yardstick, unless our side
    runs alone.
    """
    sides = {} if alone else {"yardstick": ["yardstick.py"]}
    for size in sizes:
        sides["round = all" if size == "0" else f"round = {size}"] = [
            "ours.py",
            f"--set=pmc.questions_per_round={size}",
        ]
    return sides | {change: ["ours.py", f"--set={change}"] for change in also}


def run_sides(
    sides: dict[str, list[str]], checkpoint: Path, data: Path, preset: str, seeds: list[str], keep: Path | None = None
) -> dict[str, list[dict]]:
    """{side: its results, one a seed}. keep: folder for the unlearned checkpoints, PRESET-sSEED-NUMBER_OF_SIDE each."""
    found: dict[str, list[dict]] = {name: [] for name in sides}
    for seed in seeds:
        for number, (name, (script, *more)) in enumerate(sides.items()):
            kept = [f"--keep={keep / f'{preset}-s{seed}-{number}'}"] if keep else []
            found[name].append(run_side(script, checkpoint, data, preset, f"--seed={seed}", *kept, *more))
            print(
                f"{preset}, seed {seed}, {name}: unlearning {figures(found[name][-1])['unlearning, s']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return found


def figures(result: dict) -> dict[str, float]:
    """The figures that are compared, and those that our side alone has.

    The original answers come with the evaluation before; compilation is in the whole, not in the rates.
    An answer that our side stopped drawing, since it could not be kept, counts as an answer, and with the tokens that
    were drawn.
    """
    seconds, counts, ours = result["seconds"], result["counts"], {}
    if "history" in result:
        late = sum(
            h["sampled_tokens"] for h in result["history"] if 2 * h["epoch"] >= result["history"][-1]["epoch"] + 1
        )
        ours["tokens drawn in the second half of the epochs, %"] = 100 * late / counts["answer_tokens"]
        ours["drawn along the original answers, %"] = (
            100 * sum(h["original_tokens"] for h in result["history"]) / counts["answer_tokens"]
        )
        ours["solved, %"] = 100 * result["history"][-1]["solved"]
        ours["first update, s"] = seconds["first_update"]
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
        **ours,
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
    return [
        f"{name}: {a[name].mean:.1f} and {b[name].mean:.1f}"
        for name, limit in limits.items()
        if abs(a[name].mean - b[name].mean) > limit
    ]


def show(title: str, sides: dict[str, dict[str, Figure]]) -> Table:
    """A table of figures, and of ratios to the first side."""
    table = Table(title=title)
    base, *others = sides
    for heading in ("", base, *[x for name in others for x in (name, "ratio")]):
        table.add_column(heading, justify="right" if heading else "left")

    def cell(figure: Figure | None) -> str:
        return "" if figure is None else f"{figure.mean:.1f}" + (f" ± {figure.spread:.1f}" if figure.spread else "")

    for name in sides[others[-1] if others else base]:
        value = sides[base].get(name)
        cells = [cell(value)]
        for other in others:
            ratio = sides[other][name].mean / value.mean if value and value.mean else 0.0
            faster = ratio if name.endswith("/s") else 1 / ratio if name.endswith(", s") and ratio else None
            cells += [cell(sides[other][name]), f"{faster:.1f}x" if faster else ""]
        table.add_row(name, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="llama,phi")
    parser.add_argument(
        "--sizes", default="0,8", help="questions per round of our side; 0 = all, 8 = the published algorithm"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="our side with a setting changed; may be repeated",
    )
    parser.add_argument(
        "--alone", action="store_true", help="without the yardstick: our sides are held against the first of them"
    )
    parser.add_argument("--seeds", default="0", help="of all sides")
    parser.add_argument(
        "--shared", type=Path, default=HERE.parent.parent / "shared", help="folder with checkpoints/ and tofu-mini/"
    )
    parser.add_argument("--checkpoint", type=Path, help="in the place of the presets' own")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the unlearned checkpoints there")
    parser.add_argument("--out", help="JSON file for all results")
    given = parser.parse_args()
    data, results, trouble = given.shared / "tofu-mini", {}, []
    if not data.is_dir():
        parser.error(f"{data}: no such folder; --shared names the folder that holds checkpoints/ and tofu-mini/")
    sides = list_sides(given.sizes.split(","), given.also, given.alone)
    for preset in given.presets.split(","):
        if not given.checkpoint and preset not in CHECKPOINTS:
            parser.error(f"--presets={preset} needs --checkpoint")
        checkpoint = given.checkpoint or given.shared / "checkpoints" / CHECKPOINTS[preset]
        results[preset] = run_sides(sides, checkpoint, data, preset, given.seeds.split(","), given.keep)
        columns = {name: over_seeds(found) for name, found in results[preset].items()}
        title = preset + (f", means of seeds {given.seeds} ± their spread" if "," in given.seeds else "")
        Console().print(show(title, columns))
        if not given.alone:
            yardstick, *ours = columns
            trouble += [
                f"{preset}, {name}: {line}" for name in ours for line in differs(columns[yardstick], columns[name])
            ]
        if given.out:
            Path(given.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if trouble:
        sys.exit("the two sides do not do the same thing:\n" + "\n".join(trouble))


if __name__ == "__main__":
    main()
