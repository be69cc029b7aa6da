"""Hugging Face safetensors <-> sharded parameters, both ways, through a family's weight table.

A table row is (checkpoint name, parameter path, "checkpoint axes -> our axes"), such as "NH D -> D N H": the checkpoint
stores heads and head width flattened and output first. A fused tensor has a row for each parameter that is a part of
it, with that part in brackets: "NH+[KH]+KH D -> D K H" are the keys among queries, keys and values. Everything else,
shapes, slices, sharding, follows from these letters.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding

from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError, few
from pmc_jax.models.decoder import Decoder
from pmc_jax.models.family import Family
from pmc_jax.models.probe import check_names
from pmc_jax.models.tensor_files import (
    DTYPES,
    Stored,
    copy_tensors,
    file_name,
    write_file,
    write_index,
)


class Weight(NamedTuple):
    """One parameter: the checkpoint's tensor that it is, or is a part of, and how the axes go over.

    Attributes:
        name: of the tensor in the checkpoint.
        source_axes: groups of letters, such as ("NH", "D"), of this parameter in the checkpoint's layout.
        axes: letters, such as ("D", "N", "H"), of the parameter.
        parts: of a fused tensor, what stands one after the other along its first axis, such as ("NH", "KH", "KH").
        part: which of these this parameter is.
    """

    name: str
    source_axes: tuple[str, ...]
    axes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    part: int = 0

    @property
    def layout(self) -> "Weight":
        """The way its axes go over, whatever it is called and a part of."""
        return Weight("", self.source_axes, self.axes)

    def source_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Shape of this parameter in the checkpoint's layout."""
        return tuple(_size(group, sizes) for group in self.source_axes)

    def tensor_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Shape of the whole tensor in the checkpoint."""
        first, *rest = self.source_shape(sizes)
        return sum(_size(group, sizes) for group in self.parts) if self.parts else first, *rest

    def rows(self, sizes: dict[str, int]) -> slice:
        """Which rows of the tensor are this parameter's."""
        start = sum(_size(group, sizes) for group in self.parts[: self.part])
        return slice(start, start + _size(self.source_axes[0], sizes))

    def tensor_index(self, index: tuple[slice, ...], sizes: dict[str, int]) -> tuple[slice, ...]:
        """An index into this parameter, in the checkpoint's layout -> the index into the whole tensor."""
        if not self.parts:
            return index
        rows = self.rows(sizes)
        start, stop, _ = index[0].indices(rows.stop - rows.start)
        return slice(rows.start + start, rows.start + stop), *index[1:]

    def to_param(self, array: Any, sizes: dict[str, int]) -> Any:
        """Checkpoint layout -> ours; a numpy or JAX array."""
        letters = "".join(self.source_axes)
        return array.reshape([sizes[a] for a in letters]).transpose([letters.index(a) for a in self.axes])

    def to_source(self, param: Any, sizes: dict[str, int]) -> Any:
        """Ours -> checkpoint layout; a numpy or JAX array."""
        return param.transpose([self.axes.index(a) for a in "".join(self.source_axes)]).reshape(
            self.source_shape(sizes)
        )

    def shardings(self, sizes: dict[str, int], mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
        """(of the checkpoint's layout, of ours), for training; the same cut, so that nothing moves between devices."""
        letters = " ".join(group[0] for group in self.source_axes), " ".join(self.axes)
        return tuple(NamedSharding(mesh, meshes.param_spec(axes, sizes, mesh, "train")) for axes in letters)


def _size(group: str, sizes: dict[str, int]) -> int:
    return int(np.prod([sizes[a] for a in group]))


def parse_weight(name: str, spec: str) -> Weight:
    """A table row's name and axes -> Weight."""
    source, target = (tuple(side.split()) for side in spec.split("->"))
    parts = source[0].split("+")
    if len(parts) == 1:
        return Weight(name, source, target)
    part = next(i for i, group in enumerate(parts) if group.startswith("["))
    groups = tuple(group.strip("[]") for group in parts)
    return Weight(name, (groups[part], *source[1:]), target, groups, part)


def _initialize(model: Decoder, key: jax.Array) -> dict[str, Any]:
    one = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, one, one, jnp.ones((1, 1, 1), bool), method=lambda m, *a: m.unembed(m(*a)[0]))["params"]


@functools.lru_cache(maxsize=8)
def abstract_params(model: Decoder) -> dict[str, Any]:
    """The parameter tree's shapes, nothing computed. Traced once a model: for a deep one that takes seconds."""
    return jax.eval_shape(lambda: _initialize(model, jax.random.key(0)))


def weight_map(family: Family, model: Decoder) -> dict[str, Weight]:
    """{parameter path: Weight} for every parameter this model has.

    Raises:
        UserError: the family's table has no row for some of them.
    """
    paths = traverse_util.flatten_dict(abstract_params(model), sep="/")
    weights = {}
    for name, path, spec in family.weights:
        for i in range(model.config.num_layers if "{}" in name else 1):
            if path.format(i) in paths:
                weights[path.format(i)] = parse_weight(name.format(i), spec)
    if weights.keys() != paths.keys():
        missing = ", ".join(sorted(paths.keys() - weights.keys()))
        raise UserError(f"model family {model.config.family!r}: its weight table has no row for {missing}")
    return weights


def layer_matrices(family: Family, model: Decoder) -> dict[str, Weight]:
    """{parameter path: Weight} of every matrix of attention and MLP: rows of output channels in the checkpoint."""
    weights = weight_map(family, model)
    return {p: w for p, w in weights.items() if p.startswith("layer_") and len(w.source_axes) == 2}


def layout_shardings(family: Family, model: Decoder, mesh: Mesh, layout: str) -> dict[str, Any]:
    """Tree of NamedShardings for the parameters, layout "train" or "decode"."""
    sizes = model.config.axis_sizes
    specs = {p: meshes.param_spec(" ".join(w.axes), sizes, mesh, layout) for p, w in weight_map(family, model).items()}
    return traverse_util.unflatten_dict({p: NamedSharding(mesh, s) for p, s in specs.items()}, sep="/")


def init_params(family: Family, model: Decoder, mesh: Mesh, seed: int, dtype: str) -> dict[str, Any]:
    """Fresh parameters (normal, std 0.02), made sharded on the mesh."""

    def init(key):
        return jax.tree.map(lambda x: x.astype(dtype), _initialize(model, key))

    return jax.jit(init, out_shardings=layout_shardings(family, model, mesh, "train"))(jax.random.key(seed))


def load_params(
    source: Path, files: dict[str, Any], family: Family, model: Decoder, mesh: Mesh, dtype: str
) -> dict[str, Any]:
    """Parameters of a checkpoint, laid out for training.

    Each host reads only the slices that its devices hold, one tensor at a time; the devices turn them into our layout.

    Args:
        source: the folder or GGUF file, for messages.
        files: its tensors by name, of `find_tensors` or `gguf.read`.
        family: whose names and layout they have.
        model: whose parameters they are.
        mesh: where they are laid out.
        dtype: what they are cast to.

    Raises:
        UserError: tensors are missing or too many, or have another shape or kind of number, or hold what is no number.
    """
    weights, sizes = weight_map(family, model), model.config.axis_sizes
    shapes = {w.name: w.tensor_shape(sizes) for w in weights.values()}
    check_names(files, shapes, model.config.tied_head, family.carried, source)
    params, finite = {}, {}
    for path, weight in weights.items():
        stored = files[weight.name]
        if stored.dtype not in DTYPES.values():
            raise UserError(
                f"{source}: {weight.name} is {stored.dtype}; supported: F32, F16, BF16: give the checkpoint that it "
                "was made from"
            )
        source_sharding, sharding = weight.shardings(sizes, mesh)
        with stored.open(weight.name) as tensor:

            def read(index, tensor=tensor, weight=weight):
                return tensor[weight.tensor_index(index, sizes)]

            array = jax.make_array_from_callback(weight.source_shape(sizes), source_sharding, read)
            del tensor, read
        params[path], finite[path] = _to_param(weight.layout, tuple(sizes.items()), dtype, sharding)(array)
    broken = sorted({weights[path].name for path, is_finite in jax.device_get(finite).items() if not is_finite})
    if broken:
        raise UserError(
            f"{source}: NaN or Inf in {few(broken, 2)}, as {dtype}: such a model says nothing; download it again, or "
            "choose another model.dtype"
        )
    return traverse_util.unflatten_dict(params, sep="/")


@functools.lru_cache(maxsize=64)
def _to_param(weight: Weight, sizes: tuple, dtype: str, sharding: NamedSharding) -> Any:
    def to_param(tensor: jax.Array) -> tuple[jax.Array, jax.Array]:
        param = weight.to_param(tensor, dict(sizes)).astype(dtype)
        return param, jnp.isfinite(param).all()

    return jax.jit(to_param, out_shardings=(sharding, meshes.replicated_sharding(sharding.mesh)))


@functools.lru_cache(maxsize=64)
def _to_source(weight: Weight, sizes: tuple) -> Any:
    return jax.jit(lambda param: weight.to_source(param, dict(sizes)))


def by_tensor(weights: dict[str, Weight]) -> dict[str, list[str]]:
    """{checkpoint name: paths of the parameters in it}, the parts of a fused tensor in its order."""
    paths: dict[str, list[str]] = {}
    for path, weight in weights.items():
        paths.setdefault(weight.name, []).append(path)
    return {name: sorted(group, key=lambda path: weights[path].part) for name, group in paths.items()}


def source_tensor(weights: list[Weight], arrays: list[Any], sizes: dict[str, int]) -> np.ndarray:
    """A tensor of the checkpoint, on the host, from the parameters in it; all processes call this together."""

    def source(weight: Weight, array: Any) -> np.ndarray:
        unchanged = weight.source_axes == weight.axes  # the embedding: XLA would copy it
        return meshes.gather(array if unchanged else _to_source(weight.layout, tuple(sizes.items()))(array))

    sources = [source(w, x) for w, x in zip(weights, arrays)]
    return sources[0] if len(sources) == 1 else np.concatenate(sources)


def save_params(
    folder: Path,
    params: dict[str, Any],
    family: Family,
    model: Decoder,
    shard_bytes: int = 2**30,
    carried: dict[str, Stored] | None = None,
) -> None:
    """Write the parameters as safetensors under the family's names.

    One tensor at a time is brought together on the hosts; the first process writes it.

    Args:
        folder: where to.
        params: the model's.
        family: whose names are written.
        model: whose parameters they are.
        shard_bytes: the most bytes in a file; where there are several, an index is written too.
        carried: tensors of other files by name, which are copied into a last file of their own.
    """
    flat, sizes = traverse_util.flatten_dict(params, sep="/"), model.config.axis_sizes
    weights = weight_map(family, model)
    tensors = by_tensor(weights)
    bytes_of = {name: sum(flat[path].nbytes for path in paths) for name, paths in tensors.items()}

    def tensor_of(name: str) -> np.ndarray:
        return source_tensor([weights[p] for p in tensors[name]], [flat[p] for p in tensors[name]], sizes)

    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name in tensors:
        if bytes_of[name] > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= bytes_of[name]
    files, count = {}, len(shards) + bool(carried)
    for i, names in enumerate(shards):
        file = file_name(i, count)
        firsts = {name: tensors[name][0] for name in names}
        shapes = {name: (flat[p].dtype, weights[p].tensor_shape(sizes)) for name, p in firsts.items()}
        write_file(folder / file, shapes, map(tensor_of, names))
        files |= dict.fromkeys(names, file)
    if carried:
        copy_tensors(folder / file_name(count - 1, count), carried)
        files |= dict.fromkeys(carried, file_name(count - 1, count))
    if count > 1:
        write_index(folder, files, sum(bytes_of.values()) + sum(x.nbytes for x in (carried or {}).values()))
