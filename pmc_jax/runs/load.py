"""What a run starts from: the checkpoint and the rows that the settings name."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data import questions
from pmc_jax.data.tokenizer import train_tokenizer
from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import read_adapters
from pmc_jax.models import pretrained
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.tracking.folders import FolderWriter
from pmc_jax.training.settings import plan_adapters
from pmc_jax.training.state import with_remat

TOKENIZER = "tokenizer"  # folder in the workdir of a model from scratch


def load_checkpoint(config: ConfigDict) -> PretrainedModel:
    """The checkpoint that the settings name, on the mesh that they ask for, with remat set as they say."""
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    checkpoint = pretrained.load(config.model.path, config.model.dtype, mesh, config.model.family)
    # An unknown target is told before anything is written.
    plan_adapters(checkpoint.family, checkpoint.model, read_adapters(config))
    return with_remat(checkpoint, config.train.remat)


def finetune_rows(config: ConfigDict) -> questions.Rows:
    """The rows of all splits named in data.finetune."""
    every_row: questions.Rows = []
    for split in config.data.finetune.split("+"):
        every_row += questions.load_rows(config.data.path, split, "", config.data, ("question", "answer"))
    return every_row


def start_checkpoint(config: ConfigDict, rows: questions.Rows) -> PretrainedModel:
    """The checkpoint to fine-tune: loaded, or made from scratch when model.path is empty and model.scratch is given."""
    if config.model.path:
        return load_checkpoint(config)
    if not config.model.scratch:
        raise UserError(
            "model.path is empty and so is model.scratch: name a checkpoint, or give the config.json of a new model"
        )
    return make_checkpoint(config, train_tokenizer(rows, config.model.scratch.vocab_size))


def rows_tokenizer(config: ConfigDict) -> Any:
    """The tokenizer of a model from scratch, made again from the rows of its run."""
    return train_tokenizer(finetune_rows(config), config.model.scratch.vocab_size)


def make_checkpoint(config: ConfigDict, tokenizer: Any) -> PretrainedModel:
    """A model from scratch."""
    raw = json.loads(config.model.scratch.to_json())
    raw |= {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.model)
    return pretrained.create(raw, tokenizer, config.seed, config.model.dtype, mesh, config.model.family)


def keep_tokenizer(checkpoint: PretrainedModel, folder: Path) -> None:
    """Write the tokenizer of a model from scratch into the run's folder: an export then needs no data."""
    if multihost.is_primary() and checkpoint.source == pretrained.SCRATCH and not (folder / TOKENIZER).exists():
        writer = FolderWriter(folder / TOKENIZER)
        writer.begin()
        checkpoint.tokenizer.save_pretrained(writer.partial)
        writer.finish()
