"""Chips and topologies: what a TPU's or GPU's chip can do, and the devices of a slice that is not there."""

import functools
import importlib.util
import math
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh

from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.plan import gpu


class Chip(NamedTuple):
    """One chip. flops: peak bfloat16 FLOP/s, dense. hbm: bytes a program may use: the TPU compiler's own limit, a GPU's
    whole memory. bandwidth: HBM bytes/s.

    ici: bytes/s that a ring over one axis of the torus moves through a chip (two links); of a GPU, NVLink in one
    direction. dcn: bytes/s between slices, or nodes of GPUs: the host's share of a chip.
    axes: of its torus; a node of GPUs has one. Source: Cloud TPU documentation, the pages of v5e, v5p and v6e; NVIDIA's
    data sheets of the SXM modules, and those of DGX A100, H100 and H200 for the network.
    """

    flops: float
    hbm: float
    bandwidth: float
    ici: float
    dcn: float
    axes: int


CHIPS = {
    "v5e": Chip(197e12, 15.75 * 2**30, 819e9, 100e9, 3.125e9, 2),
    "v5p": Chip(459e12, 95.74 * 2**30, 2765e9, 200e9, 6.25e9, 3),
    "v6e": Chip(918e12, 31.25 * 2**30, 1640e9, 200e9, 12.5e9, 2),
    "a100": Chip(312e12, 80e9, 2.039e12, 300e9, 25e9, 1),
    "h100": Chip(989e12, 80e9, 3.35e12, 450e9, 50e9, 1),
    "h200": Chip(989e12, 141e9, 4.8e12, 450e9, 50e9, 1),
}
GPUS = ("a100", "h100", "h200")
NODE = 8  # GPUs that NVLink joins
EXAMPLES = "v5e:2x4, v5e:4x4, v5p:2x4x4, v6e:8x8, 2*v5e:4x4, h100:8, 2*h200:8"
# Nothing but the compiler of libtpu is wanted: no look for a TPU's surroundings, and no lock against others that use it
# at the same time.
SURROUNDINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """`slices` slices of chips of one kind; of GPUs, nodes."""

    kind: str
    shape: tuple[int, ...]
    slices: int

    @property
    def chip(self) -> Chip:
        """One chip of the kind."""
        return CHIPS[self.kind]

    @property
    def is_gpu(self) -> bool:
        """Whether the chips are GPUs."""
        return self.kind in GPUS

    @property
    def chips(self) -> int:
        """How many chips all slices have."""
        return math.prod(self.shape) * self.slices

    def __str__(self) -> str:
        return f"{self.slices}*" * (self.slices > 1) + f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str | None, slices: int = 1) -> Topology:
    """A Topology from "v5e:2x4" or, with several slices, "2*v5e:4x4". UserError when there can be no such one."""
    if not text:
        raise UserError(f"--topology is missing: the slice to plan for, as {EXAMPLES}")
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)", text)
    if not match or match[2] not in CHIPS:
        raise UserError(
            f"--topology={text}: not a topology that is known here ({', '.join(CHIPS)}); examples: {EXAMPLES}"
        )
    shape = tuple(map(int, match[3].split("x")))
    axes = CHIPS[match[2]].axes
    if len(shape) != axes or 0 in shape:
        raise UserError(f"--topology={text}: a {match[2]} slice has {axes} axes of 1 or more chips, as {EXAMPLES}")
    if match[2] in GPUS and shape[0] > NODE:
        raise UserError(f"--topology={text}: a node has at most {NODE} GPUs; several nodes are such as 2*{match[2]}:8")
    if match[1] and slices > 1:
        raise UserError(f"--topology={text} --slices={slices}: name the slices once")
    slices = int(match[1] or slices)
    if slices < 1:
        raise UserError(f"--slices={slices}: must be 1 or more")
    return Topology(match[2], shape, slices)


def mesh_maker(topology: Topology, compiled: bool) -> Callable[[int, int], Mesh | AbstractMesh]:
    """(data, model) -> a mesh over the topology, as `meshes.make_mesh`. Where nothing is compiled for GPUs, it has a
    shape and no devices: memory and bounds follow from it.

    Raises:
        UserError: the compiler for these devices is not installed, or knows no such slice.
    """
    if topology.is_gpu and not compiled:
        return functools.partial(meshes.make_abstract_mesh, topology.chips, slices=topology.slices)
    if topology.is_gpu:
        chip, (each,) = topology.chip, topology.shape
        cards = gpu.devices(topology.kind, topology.slices, each, chip.hbm, chip.bandwidth)
        return functools.partial(meshes.make_mesh, devices=cards, slices=topology.slices)
    return functools.partial(meshes.make_mesh, devices=devices(topology), slices=topology.slices)


def devices(topology: Topology) -> list[Any]:
    """A TPU topology's devices, to compile for. UserError where libtpu is absent or knows no such slice."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "plan needs the TPU compiler: pip install 'pmc-jax[plan]' (the libtpu package; no TPU is needed)"
        )
    os.environ.update({k: v for k, v in SURROUNDINGS.items() if k not in os.environ})
    jax.config.update("jax_platforms", "cpu")  # small host arrays go nowhere else
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache would leave no text
    from jax.experimental import topologies

    bounds = (*(min(2, n) for n in topology.shape[:2]), 1)
    name = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=name, chips_per_host_bounds=bounds, num_slices=topology.slices
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology={topology}: the TPU compiler knows no such slice: {str(error).splitlines()[0]}"
        ) from None
    return list(described.devices)
