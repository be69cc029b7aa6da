"""The verb `ask`: questions in, the answers of the original and of the unlearned model side by side."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from pmc_jax import config as settings
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models import pretrained
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.runs.console import console
from pmc_jax.sampling.generate import sample
from pmc_jax.tracking.files import read_json
from pmc_jax.tracking.workdir import Workdir

Answers = dict[str, list[list[str]]]  # {model: [question][sample]}


class Subject(NamedTuple):
    """Whom the questions go to.

    Attributes:
        models: {what the model is: its folder or hub id}.
        config: the settings that the models were made with; None for a plain checkpoint.
    """

    models: dict[str, str]
    config: ConfigDict | None


def ask(target: str, questions: list[str], samples: int, config: ConfigDict, changed: list[str], as_json: bool) -> None:
    """Print the answers of each model to each question.

    Without questions they are read from stdin: line by line from a terminal, all at once from a pipe. Questions given
    at once are put to one model after the other, so that only one is in memory.

    Args:
        target: a workdir of `unlearn`, `finetune`, `evaluate` or `demo`, a checkpoint's folder, or a hub id.
        questions: the questions; empty to read them from stdin.
        samples: answers to draw for each question; 0 = the greedy one.
        config: the settings of the command line.
        changed: dotted names of those that were given there; they take the place of the run's own.
        as_json: print one JSON object a question instead of a table.

    Raises:
        UserError: the target is neither a workdir nor a checkpoint, or the run in it has no model yet.
    """
    subject = find_subject(target)
    config = merge(subject.config, config, changed)
    show = show_json if as_json else show_table
    if not questions and sys.stdin.isatty():
        loaded = {name: load(path, config) for name, path in subject.models.items()}
        for question in read_terminal():
            show([question], {name: answer(model, [question], samples, config) for name, model in loaded.items()})
        return
    questions = questions or [line.strip() for line in sys.stdin if line.strip()]
    if not questions:
        raise UserError("ask: no question given; name them after the workdir, or write them into stdin, one a line")
    answers = {name: answer(load(path, config), questions, samples, config) for name, path in subject.models.items()}
    show(questions, answers)


def find_subject(target: str) -> Subject:
    """The models that a workdir or a checkpoint stands for. UserError where it stands for none."""
    folder = Path(target)
    if not folder.exists():
        if target.startswith((".", "/", "~")) or target.count("/") != 1:
            raise UserError(f"ask: {target}: no such workdir, no such checkpoint, and not a hub id (owner/name)")
        return Subject({"answer": target}, None)
    if not (folder / "config.json").exists() and (folder / "unlearned" / "config.json").exists():
        folder = folder / "unlearned"  # the workdir of a demo holds that of two runs
    run = read_json(folder / "config.json")
    if run is None:
        raise UserError(f"ask: {folder}: neither a workdir of pmc-jax nor a checkpoint: it has no config.json")
    if not (isinstance(run, dict) and {"verb", "settings"} <= run.keys()):
        return Subject({"answer": str(folder)}, None)
    config = settings.from_flat(Workdir(str(folder)).settings())
    if run["verb"] == "evaluate":
        return Subject({"answer": config.model.path}, config)
    if not (folder / "hf" / "config.json").exists():
        raise UserError(
            f"ask: {folder}: the run has no model yet; let it finish (the command that started it goes on), or write a "
            f"saved round: pmc-jax export --workdir={folder}"
        )
    trained = str(folder / "hf")
    if run["verb"] == "unlearn":
        return Subject({"original": config.model.path, "unlearned": trained}, config)
    return Subject({"answer": trained}, config)


def merge(run: ConfigDict | None, given: ConfigDict, changed: list[str]) -> ConfigDict:
    """The run's settings on the devices that are here, with what was changed on the command line."""
    if run is None:
        return settings.check(given)
    here = {"mesh.data": -1, "mesh.model": 1}
    return settings.check(settings.changed(run, here | {name: settings.lookup(given, name) for name in changed}))


def load(path: str, config: ConfigDict) -> PretrainedModel:
    """A model on the devices that the settings ask for."""
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    return pretrained.load(path, config.model.dtype, mesh, config.model.family)


def answer(model: PretrainedModel, questions: list[str], samples: int, config: ConfigDict) -> list[list[str]]:
    """[question][sample] -> text; one greedy answer each when `samples` is 0."""
    if not samples:
        greedy = dict(temperature=0.0, max_new_tokens=config.evaluate.max_new_tokens)
        return sample(model, questions, config=config, **greedy)
    s = config.sample
    drawn = dict(temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, max_new_tokens=s.max_new_tokens)
    return sample(model, questions, num_samples=samples, seed=config.seed, config=config, **drawn)


def read_terminal(read: Callable[[str], str] = input) -> Iterator[str]:
    """The questions typed in, until Ctrl-D or Ctrl-C."""
    console.print("One question a line; Ctrl-D ends.", style="dim")
    while True:
        try:
            question = read("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if question:
            yield question


def show_table(questions: list[str], answers: Answers) -> None:
    """Print a table for each question: a column for each model, a row for each sample."""
    for q, question in enumerate(questions):
        table = Table(title=Text(question, style="bold"), title_justify="left", show_lines=True, expand=True)
        for name in answers:
            table.add_column(name, ratio=1)
        for texts in zip(*(model_answers[q] for model_answers in answers.values())):
            table.add_row(*(Text(text) if text else Text("(an empty answer)", style="dim") for text in texts))
        console.print(table)


def show_json(questions: list[str], answers: Answers) -> None:
    """Print a line for each question: {"question": ..., model: [answers]}."""
    for q, question in enumerate(questions):
        print(
            json.dumps({"question": question} | {name: texts[q] for name, texts in answers.items()}, ensure_ascii=False)
        )
