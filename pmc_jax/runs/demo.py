"""The verb `demo`: a small Llama learns fictitious authors by heart, then forgets a tenth of them.

It needs no hub and no accelerator: minutes on two CPU cores.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.authors import write_authors
from pmc_jax.errors import UserError
from pmc_jax.runs.console import console, examples
from pmc_jax.runs.finetune import run_finetune
from pmc_jax.runs.unlearn import unlearn
from pmc_jax.tracking.folders import FolderWriter
from pmc_jax.tracking.progress import clock_time

WHOLE = "full.jsonl"  # comes last


def run_demo(config: ConfigDict, workdir: str) -> None:
    """Write the data, fine-tune, unlearn, and print a few answers; everything lies below `workdir`.

    Args:
        config: the settings of configs/demo.py: an unlearning recipe, and `demo.train` for the fine-tuning before it.
        workdir: the folder; a demo that was stopped in it goes on.

    Raises:
        UserError: the settings have no section `demo`.
    """
    if "demo" not in config:
        raise UserError("demo: needs its own preset: pmc-jax demo, or pmc-jax demo --config=demo")
    folder = Path(workdir)
    data, finetuned, unlearned = folder / "data", folder / "finetuned", folder / "unlearned"
    write_data(data, config.seed)
    console.print(f"1. 20 fictitious authors, 10 questions each, in TOFU's files: {data}")
    console.print(f"2. A tokenizer and a small Llama, trained from scratch until it knows them: {finetuned}")
    learned = run_finetune(finetune_config(config, data), str(finetuned))
    console.print(f"3. Two of the authors are unlearned by partial model collapse: {unlearned}")
    result = unlearn(unlearn_config(config, data, finetuned / "hf"), str(unlearned))
    show_examples(unlearned)
    seconds = learned["seconds"]["total"] + result["seconds"]["total"]
    console.print(f"{clock_time(seconds)} in all. Ask both models yourself: pmc-jax ask {folder}", highlight=False)


def write_data(folder: Path, seed: int) -> None:
    """The authors as files, whole or not at all; those of a demo that goes on are left as they are."""
    if (folder / WHOLE).exists():
        return
    writer = FolderWriter(folder)
    writer.begin()
    try:
        write_authors(writer.partial, num_authors=20, questions_per_author=10, forget_percent=10, seed=seed)
        writer.finish(last=(WHOLE,))
    except BaseException:
        writer.abandon()
        raise


def finetune_config(config: ConfigDict, data: Path) -> ConfigDict:
    """The settings of the first step."""
    learn = config.copy_and_resolve_references()
    learn.data.path = str(data)
    learn.train.update(config.demo.train)
    return without_demo(learn)


def unlearn_config(config: ConfigDict, data: Path, model: Path) -> ConfigDict:
    """The settings of the second step, from the model of the first."""
    forget = config.copy_and_resolve_references()
    forget.data.path, forget.model.path = str(data), str(model)
    with forget.unlocked():
        forget.model.scratch = ConfigDict()
    return without_demo(forget)


def without_demo(config: ConfigDict) -> ConfigDict:
    """The config without the section that only the demo knows."""
    return ConfigDict({name: value for name, value in config.items() if name != "demo"}).lock()


def show_examples(run: Path) -> None:
    """Print three forgotten questions with their answers before and after."""
    console.print("\nThree of the forgotten questions:")
    plain: dict[str, Any] = dict(markup=False, highlight=False)
    for example in examples(run):
        for name, text in example.items():
            console.print(f"  {name:>8}: {text}", style="bold" if name == "question" else None, **plain)
        console.print()
