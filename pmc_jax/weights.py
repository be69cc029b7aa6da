"""Hugging Face safetensors <-> sharded parameters, both ways, through a family's weight table.

A table row is (checkpoint name, parameter path, "checkpoint axes -> our axes"), such as "NH D -> D N H": the checkpoint stores heads and head width
flattened and output first. Everything else, shapes, slices, sharding, follows from these letters.
"""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pmc_jax import hosts, parallel
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family, ModelConfig

# Buffers that older checkpoints carry and that are computed here.
IGNORED = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.attn\.(bias|masked_bias)$")


class Weight(NamedTuple):
    """One parameter: its name in the checkpoint and how the axes go over."""

    name: str
    source_axes: tuple[str, ...]  # groups of letters, as ("NH", "D")
    axes: tuple[str, ...]  # letters, as ("D", "N", "H")

    def source_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(int(np.prod([sizes[a] for a in group])) for group in self.source_axes)

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(sizes[a] for a in self.axes)

    def source_index(self, index: tuple[slice, ...], sizes: dict[str, int]) -> tuple[slice, ...]:
        """The slice of the checkpoint tensor that holds `index` of the parameter; only a group's first letter may be cut."""
        wanted = {a: s.indices(sizes[a])[:2] for a, s in zip(self.axes, index)}
        inner = [int(np.prod([sizes[a] for a in group[1:]])) for group in self.source_axes]
        return tuple(slice(wanted[g[0]][0] * n, wanted[g[0]][1] * n) for g, n in zip(self.source_axes, inner))

    def to_param(self, tensor: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
        """Checkpoint layout (whole or cut along a group's first letter) -> ours."""
        shape: list[int] = []
        for group, length in zip(self.source_axes, tensor.shape):
            inner = [sizes[a] for a in group[1:]]
            shape += [length // int(np.prod(inner)), *inner]
        letters = "".join(self.source_axes)
        return tensor.reshape(shape).transpose([letters.index(a) for a in self.axes])

    def to_source(self, param: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
        """Ours (whole) -> checkpoint layout, contiguous."""
        letters = "".join(self.source_axes)
        tensor = param.transpose([self.axes.index(a) for a in letters]).reshape(self.source_shape(sizes))
        return np.ascontiguousarray(tensor)


@functools.lru_cache(maxsize=8)
def abstract_params(model: Decoder) -> dict[str, Any]:
    """The parameter tree's shapes, nothing computed. Traced once a model: for a deep one that takes seconds."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init():
        return model.init(jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool), method=lambda m, *a: m.unembed(m(*a)[0]))["params"]

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
    specs = {p: parallel.param_spec(" ".join(w.axes), sizes, mesh, layout) for p, w in weight_map(family, model).items()}
    return traverse_util.unflatten_dict({p: NamedSharding(mesh, s) for p, s in specs.items()}, sep="/")


def init_params(family: Family, model: Decoder, mesh: Mesh, seed: int, dtype: str) -> dict[str, Any]:
    """Fresh parameters (normal, std 0.02), made sharded on the mesh."""
    one = jnp.zeros((1, 1), jnp.int32)

    def init(key):
        params = model.init(key, one, one, jnp.ones((1, 1, 1), bool), method=lambda m, *a: m.unembed(m(*a)[0]))["params"]
        return jax.tree.map(lambda x: x.astype(dtype), params)

    return jax.jit(init, out_shardings=layout_shardings(family, model, mesh, "train"))(jax.random.key(seed))


def open_files(folder: Path) -> dict[str, Any]:
    """{tensor name: open safetensors file} over one or many files. UserError when a file is missing, cut short or not safetensors."""
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
        why = f"only {pickled[0]}, and pickled weights are never opened; save it as safetensors first" if pickled else "none is there"
        raise UserError(f"{folder}: no model.safetensors: {why}")
    found = {}
    for name in names:
        try:
            file = safe_open(folder / name, framework="numpy")
            found.update(dict.fromkeys(file.keys(), file))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name}: cannot be read as safetensors (truncated or missing?): {error}") from None
    return found


def check_names(files: dict[str, Any], weights: dict[str, Weight], config: ModelConfig, folder: Path) -> None:
    """UserError that names every missing, extra or mis-shaped tensor."""
    expected = {w.name: w for w in weights.values()}
    sizes = config.axis_sizes
    missing = sorted(expected.keys() - files.keys())
    extra = sorted(n for n in files.keys() - expected.keys() if not IGNORED.search(n) and not (config.tied_head and n == "lm_head.weight"))
    misshaped = [
        f"{n} is {tuple(files[n].get_slice(n).get_shape())}, config.json says {w.source_shape(sizes)}"
        for n, w in sorted(expected.items())
        if n in files and tuple(files[n].get_slice(n).get_shape()) != w.source_shape(sizes)
    ]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"not in the model: {', '.join(extra)}"] * bool(extra)
    problems += [f"wrong shape: {'; '.join(misshaped)}"] * bool(misshaped)
    if problems:
        raise UserError(f"{folder}: tensors do not fit config.json: {' | '.join(problems)}")


def load_params(folder: Path, family: Family, model: Decoder, mesh: Mesh, dtype: str) -> dict[str, Any]:
    """Parameters of the checkpoint in `folder`, laid out for training on `mesh`, cast to `dtype`.

    Each host reads only the slices its devices hold, one tensor at a time, from memory-mapped files.
    """
    weights, files, sizes = weight_map(family, model), open_files(folder), model.config.axis_sizes
    check_names(files, weights, model.config, folder)
    params = {}
    for path, weight in weights.items():
        tensor = files[weight.name].get_slice(weight.name)
        if tensor.get_dtype() not in ("F32", "F16", "BF16"):
            raise UserError(f"{folder}: {weight.name} is {tensor.get_dtype()}; supported: F32, F16, BF16")

        def read(index, weight=weight, tensor=tensor):
            return weight.to_param(tensor[weight.source_index(index, sizes)], sizes).astype(dtype)

        sharding = NamedSharding(mesh, parallel.param_spec(" ".join(weight.axes), sizes, mesh, "train"))
        params[path] = jax.make_array_from_callback(weight.shape(sizes), sharding, read)
    return traverse_util.unflatten_dict(params, sep="/")


def save_params(folder: Path, params: dict[str, Any], family: Family, model: Decoder, shard_bytes: int = 2**30) -> None:
    """Write the parameters as safetensors under the family's names, in files of at most `shard_bytes` with an index when there are several."""
    flat, weights, sizes = traverse_util.flatten_dict(params, sep="/"), weight_map(family, model), model.config.axis_sizes
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
        tensors = {}
        for path in paths:
            param = parallel.gather(flat[path])
            if hosts.is_first():
                tensors[weights[path].name] = weights[path].to_source(param, sizes)
        if hosts.is_first():
            save_file(tensors, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys((weights[p].name for p in paths), name)
    if len(shards) > 1 and hosts.is_first():
        total = sum(x.nbytes for x in flat.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + os.linesep)
