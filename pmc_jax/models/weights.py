"""Hugging Face safetensors <-> sharded parameters, both ways, through a family's weight table.

A table row is (checkpoint name, parameter path, "checkpoint axes -> our axes"), such as "NH D -> D N H": the checkpoint
stores heads and head width flattened and output first. Everything else, shapes, slices, sharding, follows from these
letters.
"""

import functools
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding
from safetensors import SafetensorError, safe_open

from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family, ModelConfig

# Buffers that older checkpoints carry and that are computed here.
IGNORED = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.attn\.(bias|masked_bias)$")


class Weight(NamedTuple):
    """One parameter: its name in the checkpoint and how the axes go over. Arrays may be numpy's or JAX's."""

    name: str
    source_axes: tuple[str, ...]  # groups of letters, as ("NH", "D")
    axes: tuple[str, ...]  # letters, as ("D", "N", "H")

    def source_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(int(np.prod([sizes[a] for a in group])) for group in self.source_axes)

    def to_param(self, tensor: Any, sizes: dict[str, int]) -> Any:
        """Checkpoint layout -> ours."""
        letters = "".join(self.source_axes)
        return tensor.reshape([sizes[a] for a in letters]).transpose([letters.index(a) for a in self.axes])

    def to_source(self, param: Any, sizes: dict[str, int]) -> Any:
        """Ours -> checkpoint layout."""
        return param.transpose([self.axes.index(a) for a in "".join(self.source_axes)]).reshape(
            self.source_shape(sizes)
        )

    def shardings(self, sizes: dict[str, int], mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
        """(of the checkpoint's layout, of ours), for training: the same cut, so that going over moves nothing between
        devices.
        """
        letters = " ".join(group[0] for group in self.source_axes), " ".join(self.axes)
        return tuple(NamedSharding(mesh, meshes.param_spec(axes, sizes, mesh, "train")) for axes in letters)


@functools.lru_cache(maxsize=8)
def abstract_params(model: Decoder) -> dict[str, Any]:
    """The parameter tree's shapes, nothing computed. Traced once a model: for a deep one that takes seconds."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init():
        return model.init(
            jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool), method=lambda m, *a: m.unembed(m(*a)[0])
        )["params"]

    return jax.eval_shape(init)


def weight_map(family: Family, model: Decoder) -> dict[str, Weight]:
    """{parameter path: Weight} for every parameter this model has."""
    paths = traverse_util.flatten_dict(abstract_params(model), sep="/")
    found = {}
    for name, path, spec in family.weights:
        source, target = (tuple(side.split()) for side in spec.split("->"))
        for i in range(model.config.num_layers if "{}" in name else 1):
            if path.format(i) in paths:
                found[path.format(i)] = Weight(name.format(i), source, target)
    if found.keys() != paths.keys():
        raise AssertionError(f"weight table lacks {sorted(paths.keys() - found.keys())}")
    return found


def layout_shardings(family: Family, model: Decoder, mesh: Mesh, layout: str) -> dict[str, Any]:
    """Tree of NamedShardings for the parameters, layout "train" or "decode"."""
    sizes = model.config.axis_sizes
    specs = {p: meshes.param_spec(" ".join(w.axes), sizes, mesh, layout) for p, w in weight_map(family, model).items()}
    return traverse_util.unflatten_dict({p: NamedSharding(mesh, s) for p, s in specs.items()}, sep="/")


def init_params(family: Family, model: Decoder, mesh: Mesh, seed: int, dtype: str) -> dict[str, Any]:
    """Fresh parameters (normal, std 0.02), made sharded on the mesh."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init(key):
        params = model.init(key, one, one, jnp.ones((1, 1, 1), bool), method=lambda m, *a: m.unembed(m(*a)[0]))[
            "params"
        ]
        return jax.tree.map(lambda x: x.astype(dtype), params)

    return jax.jit(init, out_shardings=layout_shardings(family, model, mesh, "train"))(jax.random.key(seed))


class Stored(NamedTuple):
    """A tensor in a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it, "BF16"


def find_tensors(folder: Path) -> dict[str, Stored]:
    """{name: tensor} over one or many files. UserError when a file is missing, cut short or not safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of safetensors files: no valid JSON with a 'weight_map'") from None
    elif (folder / "model.safetensors").exists():
        names = ["model.safetensors"]
    else:
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        why = (
            f"only {pickled[0]}, and pickled weights are never opened; save it as safetensors first"
            if pickled
            else "none is there"
        )
        raise UserError(f"{folder}: no model.safetensors: {why}")
    found: dict[str, Stored] = {}
    for name in names:
        try:
            with safe_open(folder / name, framework="numpy") as file:
                slices = {tensor: file.get_slice(tensor) for tensor in file.keys()}
                found |= {
                    tensor: Stored(folder / name, tuple(s.get_shape()), s.get_dtype()) for tensor, s in slices.items()
                }
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{folder / name}: cannot be read as safetensors (truncated or missing?): {error}"
            ) from None
    return found


def check_names(files: dict[str, Stored], weights: dict[str, Weight], config: ModelConfig, folder: Path) -> None:
    """UserError that names every missing, extra or mis-shaped tensor."""
    expected = {w.name: w for w in weights.values()}
    sizes = config.axis_sizes
    missing = sorted(expected.keys() - files.keys())
    extra = sorted(
        n
        for n in files.keys() - expected.keys()
        if not IGNORED.search(n) and not (config.tied_head and n == "lm_head.weight")
    )
    misshaped = [
        f"{n} is {files[n].shape}, config.json says {w.source_shape(sizes)}"
        for n, w in sorted(expected.items())
        if n in files and files[n].shape != w.source_shape(sizes)
    ]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"not in the model: {', '.join(extra)}"] * bool(
        extra
    )
    problems += [f"wrong shape: {'; '.join(misshaped)}"] * bool(misshaped)
    if problems:
        raise UserError(f"{folder}: tensors do not fit config.json: {' | '.join(problems)}")


def load_params(folder: Path, family: Family, model: Decoder, mesh: Mesh, dtype: str) -> dict[str, Any]:
    """Parameters of the checkpoint in `folder`, laid out for training on `mesh`, cast to `dtype`.

    Each host reads only the slices that its devices hold, one tensor at a time; the devices turn them into our layout.
    """
    weights, files, sizes = weight_map(family, model), find_tensors(folder), model.config.axis_sizes
    check_names(files, weights, model.config, folder)
    params = {}
    for path, weight in weights.items():
        stored = files[weight.name]
        if stored.dtype not in ("F32", "F16", "BF16"):
            raise UserError(f"{folder}: {weight.name} is {stored.dtype}; supported: F32, F16, BF16")
        source_sharding, sharding = weight.shardings(sizes, mesh)
        # Opened anew for each tensor: the pages of a mapped file count as this process's memory for as long as it is
        # open.
        with safe_open(stored.file, framework="numpy") as file:
            tensor = file.get_slice(weight.name)
            source = jax.make_array_from_callback(
                stored.shape, source_sharding, lambda index, tensor=tensor: tensor[index]
            )
            del tensor
        params[path] = _to_param(weight._replace(name=""), tuple(sizes.items()), dtype, sharding)(source)
    return traverse_util.unflatten_dict(params, sep="/")


@functools.lru_cache(maxsize=64)
def _to_param(weight: Weight, sizes: tuple, dtype: str, sharding: NamedSharding) -> Any:
    return jax.jit(lambda tensor: weight.to_param(tensor, dict(sizes)).astype(dtype), out_shardings=sharding)


@functools.lru_cache(maxsize=64)
def _to_source(weight: Weight, sizes: tuple) -> Any:
    return jax.jit(lambda param: weight.to_source(param, dict(sizes)))


def save_params(folder: Path, params: dict[str, Any], family: Family, model: Decoder, shard_bytes: int = 2**30) -> None:
    """Write the parameters as safetensors under the family's names, in files of at most `shard_bytes` with an index
    when there are several.

    One tensor at a time is brought together on the hosts; the first process writes it.
    """
    flat, weights, sizes = (
        traverse_util.flatten_dict(params, sep="/"),
        weight_map(family, model),
        model.config.axis_sizes,
    )

    def tensor_of(path: str) -> np.ndarray:
        weight = weights[path]._replace(name="")
        as_it_is = weight.source_axes == weight.axes  # the embedding: XLA would copy it
        return meshes.gather(flat[path] if as_it_is else _to_source(weight, tuple(sizes.items()))(flat[path]))

    shards: list[list[str]] = [[]]
    room = shard_bytes
    for path in weights:
        if flat[path].nbytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(path)
        room -= flat[path].nbytes
    where = {}
    for i, paths in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {weights[p].name: (flat[p].dtype, weights[p].source_shape(sizes)) for p in paths}
        write_safetensors(folder / name, tensors, map(tensor_of, paths))
        where |= dict.fromkeys(tensors, name)
    if len(shards) > 1 and multihost.is_primary():
        total = sum(x.nbytes for x in flat.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + os.linesep)


def write_safetensors(
    file: Path, shapes: dict[str, tuple[Any, tuple[int, ...]]], tensors: Iterable[np.ndarray]
) -> None:
    """Write a safetensors file tensor by tensor, where the library's own writer wants all of them at once; on the first
    process.

    shapes: (dtype, shape) by name, in the order of `tensors`. Format: the header's length as 8 bytes, the header as
    JSON padded to 8, the data.
    """
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[str(dtype)], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with open(file if multihost.is_primary() else os.devnull, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            out.write(np.ascontiguousarray(tensor).view(np.uint8).data)
