"""TPU chips and topologies: what a chip can do, and the devices of a slice that is not there."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax

from pmc_jax.errors import UserError


class Chip(NamedTuple):
    """One chip. flops: peak bfloat16 FLOP/s. hbm: bytes a program may use (the compiler's own limit). bandwidth: HBM
    bytes/s.

    ici: bytes/s that a ring over one axis of the torus moves through a chip (two links). dcn: bytes/s between slices,
    the host's share of a chip.
    axes: of its torus. Source: Cloud TPU documentation, the pages of v5e, v5p and v6e.
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
}
EXAMPLES = "v5e:2x4, v5e:4x4, v5p:2x4x4, v6e:8x8, 2*v5e:4x4"
# Nothing but the compiler of libtpu is wanted: no look for a TPU's surroundings, and no lock against others that use it
# at the same time.
SURROUNDINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """`slices` slices of chips of one kind."""

    kind: str
    shape: tuple[int, ...]
    slices: int

    @property
    def chip(self) -> Chip:
        """One chip of the kind."""
        return CHIPS[self.kind]

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
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)+)", text)
    if not match or match[2] not in CHIPS:
        raise UserError(
            f"--topology={text}: not a topology that is known here ({', '.join(CHIPS)}); examples: {EXAMPLES}"
        )
    shape = tuple(map(int, match[3].split("x")))
    axes = CHIPS[match[2]].axes
    if len(shape) != axes or 0 in shape:
        raise UserError(f"--topology={text}: a {match[2]} slice has {axes} axes of 1 or more chips, as {EXAMPLES}")
    if match[1] and slices > 1:
        raise UserError(f"--topology={text} --slices={slices}: name the slices once")
    slices = int(match[1] or slices)
    if slices < 1:
        raise UserError(f"--slices={slices}: must be 1 or more")
    return Topology(match[2], shape, slices)


def devices(topology: Topology) -> list[Any]:
    """The topology's devices, to compile for. UserError where libtpu is absent or knows no such slice."""
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
