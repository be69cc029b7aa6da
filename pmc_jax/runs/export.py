"""The verb `export`: a saved round of a run as a Hugging Face checkpoint."""

from pathlib import Path

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import read_training
from pmc_jax.models import pretrained
from pmc_jax.runs.console import console
from pmc_jax.runs.load import finetune_rows, load_checkpoint, start_checkpoint
from pmc_jax.tracking.workdir import Workdir
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import shapes_of_state, trained


def run_export(workdir: str, output: str, number: int | None) -> Path:
    """Export a saved round of an unlearning or fine-tuning run as a Hugging Face checkpoint; the last one when `number`
    is None.
    """
    frozen = multihost.broadcast_from_primary(Workdir(workdir).frozen)
    if frozen is None or frozen["verb"] not in ("unlearn", "finetune"):
        raise UserError(f"--workdir={workdir}: holds no unlearning or fine-tuning run")
    config = settings.changed(
        settings.from_flat(frozen["settings"]), {"mesh.data": -1, "mesh.model": 1}
    )  # the devices here, not those of the run
    unlearning = frozen["verb"] == "unlearn"
    rounds = RoundCheckpointer(Path(workdir) / "rounds", read_only=True)  # the run may still be going on
    kept = rounds.all()
    if not kept or (number is not None and number not in kept):
        raise UserError(
            f"--workdir={workdir}: no saved round{'' if number is None else f' {number}'}; saved: {kept or 'none'}"
        )
    number = kept[-1] if number is None else number
    rows = questions.load_forget(config.data) if unlearning else finetune_rows(config)
    checkpoint = load_checkpoint(config) if unlearning else start_checkpoint(config, rows)
    # The number of updates an epoch only sets the learning rate.
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(config), updates=1)
    state, _ = rounds.restore(number, like=shapes_of_state(checkpoint, recipe))
    rounds.close()
    folder = pretrained.export(trained(checkpoint, recipe, state), output)
    console.print(f"exported round {number} to {folder}")
    return folder
