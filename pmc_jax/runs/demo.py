"""The demo: fictitious authors, a small Llama that learns them by heart, and then forgets a tenth of them. No hub, two
CPU cores, minutes.
"""

from pathlib import Path

from ml_collections import ConfigDict

from pmc_jax.data.authors import write_authors
from pmc_jax.errors import UserError
from pmc_jax.runs.console import console, examples
from pmc_jax.runs.finetune import run_finetune
from pmc_jax.runs.unlearn import unlearn
from pmc_jax.tracking.progress import clock_time


def run_demo(config: ConfigDict, workdir: str) -> None:
    """config: configs/demo.py, with a `finetune` recipe beside the unlearning one. Everything is written below
    `workdir`.
    """
    if "demo" not in config:
        raise UserError("demo: needs its own preset: pmc-jax demo --config=configs/demo.py --workdir=runs/demo")
    where = Path(workdir)
    say = console.print
    data = where / "data"
    if not data.exists():
        partial = where / "data.partial"  # a demo that is stopped here leaves no half of them
        write_authors(partial, num_authors=20, questions_per_author=10, forget_percent=10, seed=config.seed)
        partial.rename(data)
    say(f"1. 20 fictitious authors, 10 questions each, in TOFU's files: {data}")
    learn = config.copy_and_resolve_references()
    learn.data.path = str(data)
    learn.train.update(config.demo.train)
    say(f"2. A tokenizer and a small Llama, trained from scratch until it knows them: {where / 'finetuned'}")
    learned = run_finetune(without_demo(learn), str(where / "finetuned"))
    forget = config.copy_and_resolve_references()
    forget.data.path, forget.model.path = str(data), str(where / "finetuned" / "hf")
    with forget.unlocked():
        forget.model.scratch = ConfigDict()
    say(f"3. Two of the authors are unlearned by partial model collapse: {where / 'unlearned'}")
    result = unlearn(without_demo(forget), str(where / "unlearned"))
    say("\nThree of the forgotten questions:")
    for example in examples(where / "unlearned"):
        for name, text in example.items():
            say(f"  {name:>8}: {text}", style="bold" if name == "question" else None, markup=False, highlight=False)
        say("")
    seconds = learned["seconds"]["total"] + result["seconds"]["total"]
    say(
        f"{clock_time(seconds)} in all. Ask it yourself: "
        f"pmc_jax.sample(pmc_jax.load({str(where / 'unlearned' / 'hf')!r}), ['...'], temperature=0.0)"
    )


def without_demo(config: ConfigDict) -> ConfigDict:
    """The config without the section that only the demo knows."""
    plain = ConfigDict({k: v for k, v in config.items() if k != "demo"})
    return plain.lock()
