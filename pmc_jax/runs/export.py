"""The verb `export`: a saved round of a run as a Hugging Face checkpoint."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import read_training
from pmc_jax.models import pretrained
from pmc_jax.models.pretrained import PretrainedModel, load_tokenizer
from pmc_jax.runs.console import console
from pmc_jax.runs.load import TOKENIZER, load_checkpoint, make_checkpoint, rows_tokenizer
from pmc_jax.settings.paths import expand
from pmc_jax.tracking.fingerprint import checkpoint_fingerprint
from pmc_jax.tracking.folders import MANIFEST, contents, write_manifest
from pmc_jax.tracking.workdir import Workdir
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import layouts, trained
from pmc_jax.training.update import TrainState

# What exports consist of.
EXPORTED = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(.*_)?config\.json|(adapter/)?adapter_.*"
    r"|tokenizer\.(json|model)|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt"
    r"|(additional_chat_templates/.*|chat_template)\.jinja"
)


def run_export(workdir: str, output: str | None, number: int | None, given: dict[str, Any]) -> Path:
    """Export a saved round of an unlearning or fine-tuning run as a Hugging Face checkpoint.

    The data of the run is not needed.

    Args:
        workdir: of the run.
        output: the folder to write; None = hf/ in the workdir.
        number: of the round; None = the last one.
        given: settings that take the place of the run's own: where the checkpoint that it began with lies today, and
            how much of the way from it the export lies.

    Returns:
        The folder.
    """
    work = Workdir(workdir)
    folder = Path(expand(output)) if output else work.path / "hf"
    if output:
        check_output(work.path, folder)
    saved = restore_round(workdir, number, given)
    if not output:
        adopt_export(folder)
    written = pretrained.export(trained(saved.start, saved.recipe, saved.state), folder)
    console.print(f"exported round {saved.number} to {written}")
    return written


class SavedRound(NamedTuple):
    """A saved round of a run.

    Attributes:
        config: the settings of the run, those given in their place.
        start: the checkpoint that the run began with.
        recipe: of the run's updates, but for their rate.
        number: of the round.
        state: after it.
        notes: what was saved beside it, as JSON.
    """

    config: ConfigDict
    start: PretrainedModel
    recipe: Recipe
    number: int
    state: TrainState
    notes: dict[str, Any]


def restore_round(workdir: str, number: int | None, given: dict[str, Any]) -> SavedRound:
    """Read a saved round of an unlearning or fine-tuning run. The run may still be going on.

    Args:
        workdir: of the run.
        number: of the round; None = the last one.
        given: settings that take the place of the run's own.

    Raises:
        UserError: there is no such run, round or checkpoint.
    """
    work = Workdir(workdir)
    frozen = multihost.broadcast_from_primary(work.frozen)
    if frozen is None or frozen["verb"] not in ("unlearn", "finetune"):
        raise UserError(f"--workdir={workdir}: holds no unlearning or fine-tuning run")
    config = settings.changed(
        settings.from_flat(multihost.broadcast_from_primary(work.settings)), {"mesh.data": -1, "mesh.model": 1} | given
    )  # the devices here, not those of the run
    rounds = RoundCheckpointer(work.path / "rounds", read_only=True)
    kept = rounds.all()
    if not kept or (number is not None and number not in kept):
        raise UserError(
            f"--workdir={workdir}: no saved round{'' if number is None else f' {number}'}; saved: {kept or 'none'}"
        )
    number = kept[-1] if number is None else number
    start = load_original(config, work, frozen)
    # The number of updates an epoch only sets the learning rate.
    recipe = make_recipe(start.family, start.model, read_training(config), updates=1)
    state, notes = rounds.restore(number, *layouts(start, recipe))
    rounds.close()
    return SavedRound(config, start, recipe, number, state, notes)


def load_original(config: ConfigDict, work: Workdir, frozen: dict[str, Any]) -> PretrainedModel:
    """The checkpoint that a run began with.

    Raises:
        UserError: it is not where it was, or another one is there.
    """
    path = config.model.path
    if not path:
        kept = work.path / TOKENIZER
        return make_checkpoint(config, load_tokenizer(kept) if kept.is_dir() else rows_tokenizer(config))
    try:
        pretrained.check_path(path)
    except UserError as error:
        raise UserError(f"{error}; the run began with it: --config.model.path=FOLDER says where it is now") from None
    known = frozen.get("checkpoints", {}).get("model.path")
    if known and checkpoint_fingerprint(path) not in (known, None):
        raise UserError(
            f"model.path={path!r}: is another checkpoint than the one that the run in {work.path} began with"
        )
    return load_checkpoint(config)


def check_output(workdir: Path, output: Path) -> None:
    """UserError for the place of another run's result: what is exported there is ours, but of that run."""
    owner = output.resolve().parent
    if owner != workdir.resolve() and is_run(owner):
        raise UserError(f"--output={output}: lies in the folder of another run; choose another folder")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    try:
        return Workdir(str(folder)).frozen() is not None
    except UserError:
        return False


def adopt_export(folder: Path) -> None:
    """Give a manifest to what an earlier version exported into a run's hf/, where there is nothing else in it."""
    if multihost.is_primary() and folder.is_dir() and not (folder / MANIFEST).exists():
        files = contents(folder)
        if files and all(EXPORTED.fullmatch(name) for name in files):
            write_manifest(folder, files)
