"""A run on a topic: the model writes the data, and the workdir keeps it as a folder of ordinary files."""

import os

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import topic
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.files import write_lines
from pmc_jax.tracking.workdir import Workdir, started_with

FOLDER, FORGET, RETAIN = "data", "forget", "retain"  # in the workdir; the splits in it


def with_own_data(config: ConfigDict, work: Workdir) -> ConfigDict:
    """The settings that name the workdir's own data, where they name a topic; else as they are."""
    if not topic.topic_of(config.data):
        return config
    folder = os.path.abspath(work.path / FOLDER)
    places = {"path": folder, "forget": FORGET, "retain": RETAIN, "forget_file": "", "retain_file": ""}
    columns = {name: settings.DEFAULTS[f"data.{name}"] for name in ("question_column", "answer_column")}
    return settings.changed(config, {f"data.{name}": value for name, value in (places | columns).items()})


def is_to_be_written(config: ConfigDict, work: Workdir) -> bool:
    """Whether the model has to write the data: it is not there, and the run is not finished. Nothing is trusted that
    lies there before a run does.

    Raises:
        UserError: the folder holds something else: before minutes of sampling.
    """
    if not topic.topic_of(config.data):
        return False

    def look() -> bool:
        work.check(started_with("unlearn", with_own_data(config, work), None))
        there = work.frozen() is not None and (work.path / FOLDER / f"{FORGET}.jsonl").exists()
        return not there and not work.result()

    return multihost.broadcast_from_primary(look)


def write_data(checkpoint: PretrainedModel, config: ConfigDict) -> dict[str, Rows]:
    """The sets that the model writes (`methods.topic.write_sets`)."""
    from pmc_jax.methods.topic import write_sets  # its words' stems are slow to import, and few runs have a topic

    return write_sets(checkpoint, topic.topic_of(config.data), config)


def keep_data(work: Workdir, written: dict[str, Rows]) -> None:
    """Write the sets into the workdir, the forget rows last: where they are, all are."""
    for name in sorted(written, key=lambda name: name == FORGET):
        write_lines(work.file(f"{FOLDER}/{name}.jsonl"), written[name])


def check_not_asked(config: ConfigDict) -> None:
    """UserError where a verb that writes no questions is given a topic."""
    if config.data.topic:
        raise UserError(
            f"data.topic={config.data.topic!r}: only `unlearn` writes questions; name those of its run: "
            f"--config.data.path=RUN/{FOLDER} --config.data.forget={FORGET} --config.data.retain={RETAIN}"
        )
