"""Requests to forget, one after the other: each starts from the last one's result, and earlier ones are asked again.

    python benchmarks/sequence.py --workdir=runs/sequence --cut=5x20 --set model.path=CHECKPOINT data.path=TOFU_FOLDER
    python benchmarks/sequence.py --workdir=runs/sust --config=muse_news --requests=sust/forget_1,sust/forget_2 \\
        --set model.path=CHECKPOINT
    python benchmarks/sequence.py --workdir=runs/scal --config=muse_news --growing \\
        --requests=scal/forget_1,scal/forget_2 --set model.path=CHECKPOINT

`--requests` names splits of data.path. `--cut=5x20` makes five requests of 20 rows each instead, from the end of the
split `full`, and retain data of the rest; in TOFU 20 rows are one author. Questions of earlier requests go into the
retain data without an answer: what the model says to them now must stay. With `--growing` every request starts from the
first model: a larger and larger set. `--set` changes settings.

Prints unlearn quality of every request after every one, and utility. Each request is a run in WORKDIR/request_N, and a
command that was stopped goes on where it was.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from pages import table

from pmc_jax import config as settings
from pmc_jax.data.questions import UNRELATED, load_forget, load_retain, load_split
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.presets import load_preset
from pmc_jax.runs.unlearn import evaluate_on, load_data, unlearn
from pmc_jax.tracking.files import read_json, write_json, write_lines


def given(words: list[str]) -> dict[str, Any]:
    """NAME=VALUE words as settings, each of its setting's type."""
    values = {}
    for name, _, value in (word.partition("=") for word in words):
        kind = type(settings.DEFAULTS[name])
        values[name] = value == "True" if kind is bool else kind(value)
    return values


def copy_unrelated(path: str, folder: Path) -> None:
    """Copy the splits that have nothing to do with what is forgotten, those that there are."""
    for name in UNRELATED:
        if (Path(path) / f"{name}.jsonl").exists():
            shutil.copy(Path(path) / f"{name}.jsonl", folder)


def cut(path: str, folder: Path, count: int, rows: int) -> list[str]:
    """Write `count` requests of `rows` rows each, from the end of `full`, the rest as `retain`. Returns their names."""
    full, names = load_split(path, "full"), [f"forget_{i + 1}" for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    kept = len(full) - count * rows
    write_lines(folder / "retain.jsonl", full[:kept])
    for number, name in enumerate(names):
        write_lines(folder / f"{name}.jsonl", full[kept + number * rows : kept + (number + 1) * rows])
    copy_unrelated(path, folder)
    return names


def rehearse(config: ConfigDict, earlier: list[str], file: Path) -> ConfigDict:
    """The settings with a retain file that holds the questions of earlier requests too, for the model's own answers."""
    data, rows = config.data, load_retain(config.data)
    for name in earlier:
        rows = rows + [
            {"question": row["question"]} for row in load_forget(settings.changed(config, {"data.forget": name}).data)
        ]
    columns = {"question": data.question_column, "answer": data.answer_column}
    write_lines(file, [{columns[key]: row[key] for key in columns if row.get(key)} for row in rows])
    return settings.changed(config, {"data.retain_file": str(file), "data.retain_answers": "own"})


def ask_again(config: ConfigDict, model: str, names: list[str]) -> dict[str, Any]:
    """{"quality": unlearn quality of each request, "utility"} of a model."""
    own = settings.changed(config, {"model.path": model})
    checkpoint, asked = load_checkpoint(own), {"quality": {}, "utility": None}
    for name in names:
        sets = load_data(settings.changed(own, {"data.forget": name})).sets
        if asked["utility"] is not None:  # what stays is the same for all
            sets = {key: rows for key, rows in sets.items() if key.startswith("forget")}
        summary = evaluate_on(checkpoint, own, sets, None, name).summary()
        asked["quality"][name] = summary["unlearn_quality"]
        asked["utility"] = asked["utility"] or summary["utility"]
    return asked


def run(config: ConfigDict, names: list[str], work: Path, growing: bool) -> list[dict[str, Any]]:
    """All requests in their order. Returns {"request", "quality", "utility", "minutes"} of the start and after each."""
    start, model, steps = config.model.path, config.model.path, []
    for number, name in enumerate(names):
        own = settings.changed(config, {"model.path": model, "data.forget": name})
        folder = work / f"request_{number + 1}"
        if number and not growing and not config.data.text_window:
            own = rehearse(own, names[:number], work / f"retain_{number + 1}.jsonl")
        result = unlearn(own, str(folder))
        if not steps:
            steps.append({"request": "start", "minutes": 0.0} | ask(config, start, names, work / "start.json"))
        asked = ask(config, str(folder / "hf"), names, work / f"after_{number + 1}.json")
        steps.append({"request": name, "minutes": result["seconds"]["total"] / 60} | asked)
        model = start if growing else str(folder / "hf")
    return steps


def ask(config: ConfigDict, model: str, names: list[str], file: Path) -> dict[str, Any]:
    """`ask_again`, or what an earlier start of this command has found."""
    asked = read_json(file) or ask_again(config, model, names)
    write_json(file, asked)
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--config", default="tofu")
    parser.add_argument("--requests", default="")
    parser.add_argument("--cut", default="")
    parser.add_argument("--growing", action="store_true")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    config, work = settings.changed(load_preset(options.config), given(options.set)), Path(options.workdir)
    work.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.requests.split(",") if name]
    if options.cut:
        names = cut(config.data.path, work / "data", *map(int, options.cut.split("x")))
        config = settings.changed(config, {"data.path": str(work / "data"), "data.retain": "retain"})
    if not names:
        parser.error("name --requests, or --cut")
    steps = run(config, names, work, options.growing)
    write_json(work / "steps.json", steps)
    rows = [
        [s["request"], *(f"{s['quality'][n]:.1f}" for n in names), f"{s['utility']:.1f}", f"{s['minutes']:.1f}"]
        for s in steps
    ]
    print(table(["after", *(f"UQ {name}" for name in names), "utility", "minutes"], rows))
    print(json.dumps(steps))


if __name__ == "__main__":
    main()
