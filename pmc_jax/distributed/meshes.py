"""Device meshes and layouts: which axis of which parameter lies on which axis of the mesh.

The mesh has two axes, `data` and `model`. Training shards every weight's width D over `data` (FSDP) and its heads, mlp
and vocabulary axes over `model`. Decoding keeps the `model` sharding and replicates over `data`, so that no weight is
gathered per token.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from pmc_jax.errors import UserError

TENSOR_PARALLEL = {"N": "model", "K": "model", "F": "model", "V": "model"}
AXES = ("data", "model")
LAYOUTS = {"train": TENSOR_PARALLEL | {"D": "data"}, "decode": TENSOR_PARALLEL}


AXIS_LABELS = {"N": "attention heads", "K": "key/value heads", "F": "MLP width", "V": "vocabulary"}


def make_mesh(data: int = -1, model: int = 1, devices: list[Any] | None = None, slices: int = 1) -> Mesh:
    """A (data, model) mesh over all devices, those of the other processes included, or over those given; -1 = as many
    as are left.

    Of several slices only `data` goes from one to the next.
    """
    devices = jax.devices() if devices is None else devices
    data = rows_of_mesh(len(devices), data, model, slices)
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            (data // slices, model), (slices, 1), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh((data, model), devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def make_abstract_mesh(count: int, data: int = -1, model: int = 1, slices: int = 1) -> AbstractMesh:
    """As `make_mesh`, over `count` devices that are not there: a shape to plan with."""
    return AbstractMesh((rows_of_mesh(count, data, model, slices), model), AXES, axis_types=(AxisType.Auto,) * 2)


def rows_of_mesh(count: int, data: int, model: int, slices: int) -> int:
    """How long `data` is over `count` devices; UserError where that cannot be."""
    if count % model or data not in (-1, count // model):
        raise UserError(
            f"mesh.data={data}, mesh.model={model}: data x model must be the number of devices, which is {count}"
        )
    data = count // model
    if data % slices:
        raise UserError(f"mesh.data={data}: must be a multiple of the {slices} slices")
    return data


def check_mesh(mesh: Mesh, sizes: dict[str, int]) -> None:
    """UserError where mesh.model does not divide what tensor parallelism cuts. sizes: of the model's axes, by
    letter.
    """
    model = mesh.shape["model"]
    uneven = [f"{sizes[letter]} {name}" for letter, name in AXIS_LABELS.items() if sizes[letter] % model]
    if uneven:
        divisor = math.gcd(*(sizes[letter] for letter in AXIS_LABELS))
        raise UserError(
            f"mesh.model={model}: does not divide the model's {', '.join(uneven)}; a divisor of {divisor} does"
        )


def param_spec(axes: str, sizes: dict[str, int], mesh: Mesh, layout: str) -> PartitionSpec:
    """Where one parameter lies, on a mesh that `check_mesh` lets pass. axes: its letters, as "D N H".

    Vectors (norms, biases), and widths that `data` does not divide, are replicated over `data`.
    """
    letters = axes.split()
    spec = []
    for letter in letters:
        name = LAYOUTS[layout].get(letter)
        if name == "data" and (len(letters) == 1 or sizes[letter] % mesh.shape["data"]):
            name = None
        spec.append(name)
    return PartitionSpec(*spec)


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over `data`, the rest replicated."""
    return NamedSharding(mesh, PartitionSpec("data"))


def cache_sharding(mesh: Mesh) -> NamedSharding:
    """Keys and values, rows x heads x ..: rows over `data`, heads over `model`."""
    return NamedSharding(mesh, PartitionSpec("data", "model"))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def mesh_of(params: Any) -> Mesh:
    """The mesh that a parameter tree lies on."""
    return jax.tree.leaves(params)[0].sharding.mesh


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays (the same on every host) to global arrays; each host hands over only its own slices."""
    with jax.transfer_guard_host_to_device("allow"):  # what a guard is to let pass: a transfer that is written out
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index]), tree
        )


def gather(tree: Any) -> Any:
    """Global arrays to host arrays, whole on every process: all of them call this together, in the same order."""

    def whole(x: jax.Array) -> np.ndarray:
        if not (x.is_fully_addressable or x.is_fully_replicated):
            x = _everywhere(x.sharding.mesh)(x)
        # JAX keeps what was read with the array that it was read from: a new array over the same buffers is forgotten
        # with it.
        return jax.device_get(
            jax.make_array_from_single_device_arrays(
                x.shape, x.sharding, [shard.data for shard in x.addressable_shards]
            )
        )

    return jax.tree.map(whole, tree)


@functools.lru_cache(maxsize=4)
def _everywhere(mesh: Mesh) -> Any:
    return jax.jit(lambda x: x, out_shardings=replicated_sharding(mesh))


def own_shards(mesh: Mesh) -> list[int]:
    """The data shards that lie, in whole or in part, on this process's devices."""
    mine = [[device.process_index == jax.process_index() for device in row] for row in mesh.devices]
    return np.flatnonzero(np.any(mine, axis=1)).tolist()


def own_rows(x: jax.Array) -> list[tuple[int, np.ndarray]]:
    """What this process's devices have of an array whose first axis lies over `data`: (number of the first row, rows)
    of each shard, in their order.
    """
    shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return [(first, jax.device_get(shards[first])) for first in sorted(shards)]
