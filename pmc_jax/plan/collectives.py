"""What a compiled program sends between chips, and how long it takes."""

import math
import re
from typing import NamedTuple

from pmc_jax.plan.hlo import Module, Operation, arrays

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")


class Collective(NamedTuple):
    """A kind of collective of a program. elements, bytes: of the whole array, gathered or not yet scattered. group:
    chips that take part.
    """

    kind: str
    elements: int
    bytes: int
    group: int


def group_size(attributes: str) -> int:
    """Chips of one replica group, in any of the ways XLA writes them."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return 2  # a permutation has pairs of source and target


def read(op: Operation, computation: str) -> Collective | None:
    """The collective that an operation of a computation starts; None where it starts none.

    An all-reduce whose computation keeps one slice of the sum is what the TPU backend makes of a reduce-scatter, and
    counts as one.
    """
    kind = op.kind.removesuffix("-start")
    if kind not in COLLECTIVES or "channel_id=" not in op.rest:
        return None
    parts, group = arrays(op.shape), group_size(op.rest)
    elements, size = max(parts) if op.kind.endswith("-start") else tuple(map(sum, zip(*parts)))
    if kind == "reduce-scatter":
        elements, size = elements * group, size * group
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"
    return Collective(kind, elements, size, group)


def collectives(module: Module) -> list[tuple[Collective, str]]:
    """Every collective once, and the computation that it stands in. XLA writes one that runs beside computation into
    several fusions, always with its channel's number and the same origin. Layers, which are traced as one function,
    share their channels' numbers; their origins name them. One without an origin is in one piece.
    """
    seen: dict[tuple[str, str], tuple[Collective, str]] = {}
    for name, computation in module.computations.items():
        for op in computation.operations.values():
            if collective := read(op, name):
                channel = re.search(r"channel_id=(\d+)", op.rest)[1]
                origin = re.search(r'op_name="([^"]*)"', op.rest)
                seen.setdefault((channel, origin[1] if origin else op.name), (collective, name))
    return sorted(seen.values())


def seconds_sent(sent: list[Collective], link: float) -> float:
    """Seconds the collectives take on rings that move `link` bytes/s through each chip, one after the other, with
    nothing beside them.
    """
    passes = {"all-reduce": 2.0}
    return sum(passes.get(c.kind, 1.0) * c.bytes * (c.group - 1) / c.group / link for c in sent if c.group > 1)
