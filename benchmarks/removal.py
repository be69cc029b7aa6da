"""A removal request, from its questions alone: a model is taught a data set, and then asked to forget 20, 40 and 100
questions of it with no setting of the preset touched. Beside it stands a model that was never taught them.

    python benchmarks/removal.py --workdir=runs/removal --data=TOFU_FOLDER --model=CHECKPOINT [--preset=tofu_llama]

The model is taught the split `full` (5 epochs at 1e-4, batch 8), and a second one all but the questions of the largest
request. `--teacher=FOLDER --never=FOLDER` names such models instead. Requests are the last rows of `full`, the retain
data is the rest of it. Each is one run a seed in WORKDIR/forget_N-sSEED, and a command that was stopped goes on where
it was.

Prints, for each request: content recall of greedy answers and the mean of 30 samples, after unlearning and of the model
that never saw the questions; unlearn quality; utility before and after; minutes.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from pages import table
from sequence import given

from pmc_jax import config as settings
from pmc_jax.data.splits import has_split, load_split
from pmc_jax.evaluate import attacks
from pmc_jax.runs.finetune import run_finetune
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.presets import load_preset
from pmc_jax.runs.unlearn import evaluate_on, load_data, unlearn
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import read_json, write_json, write_lines

TAUGHT = {"train.epochs": 5, "train.learning_rate": 1e-4, "train.batch_size": 8, "train.warmup_epochs": 1.0}
SAMPLES = 30
UNRELATED = "world_facts", "real_authors"


def cut(path: str, folder: Path, counts: list[int]) -> None:
    """Write forget_N.jsonl and retain_N.jsonl for each N: the last N rows of `full`, with their paraphrases where
    there are any, and the rest. `full` and the unrelated splits come beside.
    """
    full = load_split(path, "full")
    paraphrased = {
        row["question"]: {key: row[key] for key in ("paraphrased_question", "paraphrased_answer") if key in row}
        for split in ("forget10_perturbed", "retain_perturbed")
        if has_split(path, split)
        for row in load_split(path, split)
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "full.jsonl", full)
    for count in counts:
        forget = [row | paraphrased.get(row["question"], {}) for row in full[-count:]]
        write_lines(folder / f"forget_{count}.jsonl", forget)
        write_lines(folder / f"retain_{count}.jsonl", full[:-count])
    for name in UNRELATED:
        if (Path(path) / f"{name}.jsonl").exists():
            shutil.copy(Path(path) / f"{name}.jsonl", folder)


def teach(config: ConfigDict, split: str, work: Path) -> str:
    """The folder of a checkpoint that was trained on a split."""
    run_finetune(settings.changed(config, TAUGHT | {"data.finetune": split}), str(work / split))
    return str(work / split / "hf")


def ask(config: ConfigDict, model: str, file: Path) -> dict[str, Any]:
    """What a model still says of a request, or what an earlier start of this command has found: "summary" of the
    evaluation, "sampled" mean content recall of its samples.
    """
    if asked := read_json(file):
        return asked
    own = settings.changed(config, {"model.path": model})
    checkpoint, sets = load_checkpoint(own), load_data(own).sets
    summary = evaluate_on(checkpoint, own, sets, None, model).summary()
    drawn = attacks.sampled_leakage(greedy_sampler(checkpoint, own), sets["forget"], SAMPLES)
    asked = {"summary": summary, "sampled": drawn["content_recall"]["measures"]["mean"]["mean"]}
    write_json(file, asked)
    return asked


def request(config: ConfigDict, count: int, seeds: list[int], never: str, work: Path) -> list[dict[str, Any]]:
    """A request with every seed. Returns {"questions", "seed", "before", "after", "never": as `ask`, "minutes"}."""
    own = settings.changed(config, {"data.forget": f"forget_{count}", "data.retain": f"retain_{count}"})
    asked = work / "asked"
    asked.mkdir(exist_ok=True)
    runs = []
    for seed in seeds:
        seeded, folder = settings.changed(own, {"seed": seed}), work / f"forget_{count}-s{seed}"
        result = unlearn(seeded, str(folder))
        runs.append(
            {
                "questions": count,
                "seed": seed,
                "before": ask(own, config.model.path, asked / f"before_{count}.json"),
                "after": ask(own, str(folder / "hf"), asked / f"after_{count}_{seed}.json"),
                "never": ask(own, never, asked / f"never_{count}.json"),
                "minutes": result["seconds"]["total"] / 60,
            }
        )
    return runs


def row(run: dict[str, Any]) -> list[str]:
    """A run as a row of the table."""
    greedy = [run[of]["summary"]["content_recall"]["forget"]["mean"] for of in ("before", "after", "never")]
    sampled = [run[of]["sampled"] for of in ("before", "after", "never")]
    quality, utility = (
        [run[of]["summary"][name] for of in ("before", "after")] for name in ("unlearn_quality", "utility")
    )
    told = [" / ".join(f"{x:.3f}" for x in values) for values in (greedy, sampled)]
    told += [" / ".join(f"{x:.1f}" for x in values) for values in (quality, utility)]
    return [str(run["questions"]), str(run["seed"]), *told, f"{run['minutes']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--teacher", default="")
    parser.add_argument("--never", default="")
    parser.add_argument("--preset", default="tofu_llama")
    parser.add_argument("--counts", default="20,40,100")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    if not options.model and not (options.teacher and options.never):
        parser.error("name --model, or --teacher and --never")
    work = Path(options.workdir)
    counts, seeds = ([int(x) for x in given_.split(",")] for given_ in (options.counts, options.seeds))
    cut(options.data, work / "data", counts)
    config = settings.changed(load_preset(options.preset), {"data.path": str(work / "data")} | given(options.set))
    basis = settings.changed(settings.default(), {"model.path": options.model, "data.path": str(work / "data")})
    teacher = options.teacher or teach(basis, "full", work)
    never = options.never or teach(basis, f"retain_{max(counts)}", work)
    config = settings.changed(config, {"model.path": teacher})
    runs = [run for count in counts for run in request(config, count, seeds, never, work)]
    write_json(work / "removal.json", runs)
    headings = [
        "questions",
        "seed",
        "content recall, greedy: before / after / never saw them",
        "the same, mean of 30 samples",
        "unlearn quality: before / after",
        "utility: before / after",
        "minutes",
    ]
    print(table(headings, [row(run) for run in runs]))


if __name__ == "__main__":
    main()
