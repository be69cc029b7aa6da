"""The values that the programs are compiled for, by shape and sharding only: parameters, optimizer state, a typical
batch, prompts.
"""

import functools
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from pmc_jax.data import packing
from pmc_jax.data.packing import Row
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import ACCELERATOR, DeviceKind
from pmc_jax.errors import UserError, first_line
from pmc_jax.methods.settings import read_batch, read_schedule, read_training
from pmc_jax.models import Decoder, Family, find_family, gguf, lora, pretrained, weights
from pmc_jax.models.layer_stack import stack_shapes
from pmc_jax.sampling import prompts as sampling_prompts
from pmc_jax.sampling.prompts import PROMPT_MULTIPLE, Prompts
from pmc_jax.training import update
from pmc_jax.training.batching import BatchSettings, ExpectedRows, choose_packing
from pmc_jax.training.settings import make_recipe, updates_per_epoch
from pmc_jax.training.stacking import is_stacked


class Assumed(NamedTuple):
    """What no setting says. questions: to forget. prefix: tokens that all prompts share. prompt: tokens of a whole
    prompt. answer: mean tokens.

    Prompts differ by a quarter, answers are lognormal with a standard deviation of 0.44 of their mean (TOFU's: mean 45,
    deviation 20).
    """

    questions: int
    prefix: int
    prompt: int
    answer: int

    def lengths(self, longest: int, count: int) -> np.ndarray:
        """Lengths of `count` answers, 2 to `longest` tokens; the same on every call."""
        spread = np.log1p(0.44**2)
        drawn = np.random.default_rng(0).lognormal(np.log(self.answer) - spread / 2, spread**0.5, count)
        return np.clip(drawn.round(), 2, longest).astype(int)

    def rows(self, longest: int, group: int) -> list[Row]:
        """Training rows, one a question, of at most `longest` tokens."""
        own = np.random.default_rng(group).integers(-(self.prompt // 4), self.prompt // 4 + 1, self.questions)
        starts = np.maximum(self.prompt + own, self.prefix + 1)
        lengths = self.lengths(longest, self.questions)
        return [
            Row(([1] * self.prefix + [2 + i % 2] * (s + n))[: min(s + n, longest)], min(int(s), longest - 1), group)
            for i, (s, n) in enumerate(zip(starts, lengths))
        ]


def read_shape(path: str) -> dict[str, Any]:
    """The config.json of a local folder, of a model whose shape is part of the project, or of a hub id; weights are not
    looked at.
    """
    if not path:
        raise UserError(
            f"model.path is missing: a folder with a config.json, a hub id, or one of {', '.join(shipped())}"
        )
    if Path(path).is_file():
        return gguf.read(path).raw_config
    if Path(path).is_dir():
        pretrained.check_whole(Path(path))
        return pretrained.read_json(Path(path) / "config.json")
    name = path.split("/")[-1].lower()
    for known, file in shipped().items():
        if name in (known.lower(), f"{known.lower()}-instruct", f"{known.lower()}-it"):
            return json.loads(file.read_text(encoding="utf-8"))
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(
            f"model.path={path!r}: no such folder, not a hub id (owner/name), and not one of {', '.join(shipped())}"
        )
    import huggingface_hub

    try:
        return pretrained.read_json(Path(huggingface_hub.hf_hub_download(path, "config.json")))
    except Exception as error:  # the hub client raises many kinds; each means that the file could not be had
        raise UserError(f"model.path={path!r}: the hub did not give its config.json: {first_line(error)}") from None


def shipped() -> dict[str, Any]:
    """{name: config.json} of the models whose shapes are part of the project."""
    return {file.name.removesuffix(".json"): file for file in resources.files(__package__).joinpath("shapes").iterdir()}


class Shape(NamedTuple):
    """A model without weights."""

    family: Family
    model: Decoder


def make_shape(raw: dict[str, Any], remat: bool, family: str = "", kind: DeviceKind = ACCELERATOR) -> Shape:
    """The model of a config.json as a kind of device runs it; family: as in `find_family`."""
    made_by = find_family(raw, family)
    return Shape(made_by, made_by.make_model(raw, remat=remat).suited(kind))


@functools.lru_cache
def params(shape: Shape, mesh: Mesh, layout: str, dtype: str) -> Any:
    """Abstract parameters; those for decoding are stacked where layers are scanned. UserError where the mesh's model
    axis does not divide the model's heads.
    """
    model, layers = shape.model, shape.model.config.layers
    shardings, shapes = weights.layout_shardings(shape.family, model, mesh, layout), weights.abstract_params(model)
    made = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), shapes, shardings)
    return stack_shapes(layers, made) if layout == "decode" and model.scan else made


class Training(NamedTuple):
    """What an update is given beside its batch. state: of the parameters, or of adapters. base: the parameters that the
    run begins with, where the update reads them, otherwise None.
    """

    recipe: update.Recipe
    state: update.TrainState
    base: Any


def training(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> Training:
    """The state that a run would start with. UserError for adapters that the model cannot have."""
    schedule, settings = read_schedule(config, assumed.questions), read_training(config).on(mesh)
    updates = updates_per_epoch(schedule.questions, schedule.round_size, settings.batch.size)
    recipe = make_recipe(shape.family, shape.model, settings, updates)
    whole = params(shape, mesh, "train", config.model.dtype)
    if not recipe.lora:
        base = params(shape, mesh, "train", recipe.compute_dtype) if recipe.needs_start else None
        if is_stacked(shape.model, recipe):
            layers = shape.model.config.layers
            whole, base = stack_shapes(layers, whole), base and stack_shapes(layers, base)
        return Training(recipe, update.weights_like(update.abstract_state(whole, recipe), recipe), base)
    return Training(recipe, update.abstract_state(lora.abstract(shape.model, recipe.lora, mesh), recipe), whole)


def plan_packing(config: ConfigDict, shards: int, assumed: Assumed) -> packing.Packing:
    """The packing that a run would choose for rows of the assumed lengths."""
    together = read_schedule(config, assumed.questions).round_size
    return _plan_packing(read_batch(config), config.train.max_length, together, shards, assumed)


@functools.lru_cache
def _plan_packing(
    settings: BatchSettings, max_length: int, together: int, shards: int, assumed: Assumed
) -> packing.Packing:
    groups = tuple(assumed.rows(max_length, group) for group in (packing.FORGET, packing.RETAIN))
    mesh = AbstractMesh((shards, 1), ("data", "model"))
    return choose_packing(ExpectedRows(groups, max_length, together), settings, mesh)


def batch(config: ConfigDict, mesh: Mesh, assumed: Assumed) -> packing.Batch:
    """An abstract batch of that packing."""
    shards = mesh.shape["data"]
    one = packing.pack(
        assumed.rows(config.train.max_length, packing.FORGET)[:1], plan_packing(config, shards, assumed), shards
    )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), one, update.batch_shardings(one, mesh)
    )


def prompt_width(config: ConfigDict, assumed: Assumed) -> int:
    """Slots of a padded prompt, and of the longest prefix of an answer, where prompts have such a thing."""
    longest = assumed.lengths(config.sample.max_new_tokens, assumed.questions).max()
    prefix = math.ceil(config.pmc.prefix_high * longest) if config.pmc.prefix_rows else 0
    return packing.round_up(assumed.prompt + assumed.prompt // 4 + prefix, PROMPT_MULTIPLE)


def draft_slots(config: ConfigDict, assumed: Assumed) -> int:
    """Slots for the original answers, which samples are drawn along."""
    longest = config.sample.max_new_tokens
    return sampling_prompts.draft_slots(assumed.lengths(longest, assumed.questions).tolist(), longest)


def prefix_slots(config: ConfigDict, assumed: Assumed) -> int:
    """Slots of a padded prompt and of what is read of its draft."""
    return prompt_width(config, assumed) + draft_slots(config, assumed) - 1


def prompts(config: ConfigDict, mesh: Mesh, count: int, assumed: Assumed) -> tuple[Prompts, Any]:
    """`count` abstract prompts with their drafts, and which of them are alive."""
    width, draft = prompt_width(config, assumed), draft_slots(config, assumed)
    shapes = (
        Prompts(
            ((count, width), jnp.int32), ((count, width), bool), ((count,), jnp.uint32), ((count, draft), jnp.int32)
        ),
        ((count,), bool),
    )
    make = lambda x: jax.ShapeDtypeStruct(*x, sharding=meshes.row_sharding(mesh))  # noqa: E731
    return Prompts(*map(make, shapes[0])), make(shapes[1])


def uniforms(mesh: Mesh, *shape: int) -> Any:
    """Abstract random numbers, rows first."""
    return jax.ShapeDtypeStruct((*shape, 2), jnp.float32, sharding=meshes.row_sharding(mesh))


def compute_dtype(config: ConfigDict) -> str:
    """The dtype of the forward and backward pass, and of the cache."""
    return config.model.compute_dtype or ACCELERATOR.compute_dtype


def itemsize(config: ConfigDict) -> int:
    """Bytes of a number in the forward and backward pass, and in the cache."""
    return jnp.dtype(compute_dtype(config)).itemsize


def bytes_of(tree: Any) -> int:
    """Bytes a device holds of an abstract tree."""
    return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree))
