"""A removal request, from its questions alone: a model is taught a data set, and then asked to forget 20, 40 and 100
questions of it with no setting of the preset touched. Beside it stands a model that was never taught them.

    python benchmarks/removal.py --workdir=runs/removal --data=TOFU_FOLDER --model=CHECKPOINT [--preset=removal]

The model is taught the split `full` (5 epochs at 1e-4, batch 8), and a second one all but the questions of the largest
request. `--teacher=FOLDER --never=FOLDER` names such models instead. Requests are the last rows of `full`, the retain
data is the rest of it. Each is one run a seed in WORKDIR/forget_N-sSEED, and a command that was stopped goes on where
it was.

Prints, for each request: content recall of greedy answers and the mean of 30 samples, after unlearning and of the model
that never saw the questions; unlearn quality; utility before and after; the share of refusals; epochs; minutes.
"""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from pages import table
from sequence import copy_unrelated, given

from pmc_jax import config as settings
from pmc_jax.data.splits import has_split, load_split
from pmc_jax.evaluate import attacks
from pmc_jax.runs.finetune import run_finetune
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.presets import load_preset
from pmc_jax.runs.unlearn import evaluate_on, load_data, unlearn
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import read_json, write_json, write_lines

TAUGHT = {"train.epochs": 5, "train.learning_rate": 1e-4, "train.batch_size": 8}
SAMPLES = 30


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
    copy_unrelated(path, folder)


def teach(config: ConfigDict, split: str, work: Path) -> str:
    """The folder of a checkpoint that was trained on a split."""
    run_finetune(settings.changed(config, TAUGHT | {"data.finetune": split}), str(work / split))
    return str(work / split / "hf")


def evaluated(config: ConfigDict, model: str, file: Path) -> dict[str, Any]:
    """The summary of a model's greedy answers, or what an earlier start of this command has found."""
    if summary := read_json(file):
        return summary
    own = settings.changed(config, {"model.path": model})
    summary = evaluate_on(load_checkpoint(own), own, load_data(own).sets, None, model).summary()
    write_json(file, summary)
    return summary


def sampled(config: ConfigDict, model: str, file: Path) -> float:
    """Mean content recall of a model's samples, or what an earlier start of this command has found."""
    if (kept := read_json(file)) is not None:
        return kept
    own = settings.changed(config, {"model.path": model})
    forget = load_data(own).sets["forget"]
    drawn = attacks.sampled_leakage(greedy_sampler(load_checkpoint(own), own), forget, SAMPLES)
    mean = drawn["content_recall"]["measures"]["mean"]["mean"]
    write_json(file, mean)
    return mean


def request(config: ConfigDict, count: int, seeds: list[int], never: str, work: Path) -> list[dict[str, Any]]:
    """A request with every seed: {"questions", "seed", "epochs", "minutes", "summaries": of the greedy answers,
    "sampled"}; the last two before, after, and of the model that never saw the questions.
    """
    own = settings.changed(config, {"data.forget": f"forget_{count}", "data.retain": f"retain_{count}"})
    asked = work / "asked"
    asked.mkdir(exist_ok=True)
    runs = []
    for seed in seeds:
        folder = work / f"forget_{count}-s{seed}"
        result = unlearn(settings.changed(own, {"seed": seed}), str(folder))
        models = {
            f"before_{count}": config.model.path,
            f"after_{count}_{seed}": str(folder / "hf"),
            f"never_{count}": never,
        }
        runs.append(
            {
                "questions": count,
                "seed": seed,
                "epochs": result["rounds"],
                "minutes": result["seconds"]["total"] / 60,
                "summaries": [
                    result["before"],
                    result["after"],
                    evaluated(own, never, asked / f"never_{count}.json"),
                ],
                "sampled": [sampled(own, model, asked / f"{name}_sampled.json") for name, model in models.items()],
            }
        )
    return runs


def row(run: dict[str, Any]) -> list[str]:
    """A run as a row of the table."""
    greedy = [summary["content_recall"]["forget"]["mean"] for summary in run["summaries"]]
    told = [" / ".join(f"{x:.3f}" for x in values) for values in (greedy, run["sampled"])]
    for name in ("unlearn_quality", "utility"):
        told.append(" / ".join(f"{summary[name]:.1f}" for summary in run["summaries"][:2]))
    refusals = run["summaries"][1]["forget_answers"]["refused"]
    return [
        str(run["questions"]),
        str(run["seed"]),
        *told,
        f"{refusals:.2f}",
        str(run["epochs"]),
        f"{run['minutes']:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--teacher", default="")
    parser.add_argument("--never", default="")
    parser.add_argument("--preset", default="removal")
    parser.add_argument("--counts", default="20,40,100")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    if not options.model and not (options.teacher and options.never):
        parser.error("name --model, or --teacher and --never")
    work = Path(options.workdir)
    counts, seeds = ([int(x) for x in text.split(",")] for text in (options.counts, options.seeds))
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
        "refusals",
        "epochs",
        "minutes",
    ]
    print(table(headings, [row(run) for run in runs]))


if __name__ == "__main__":
    main()
