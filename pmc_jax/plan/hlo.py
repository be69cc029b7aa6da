"""What a compiled TPU program sends between chips, and what it multiplies in float32: read from its HLO text."""

import math
import re
from typing import NamedTuple

BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
ARRAY = re.compile(r"\b(" + "|".join(BYTES) + r")\[([\d,]*)\]")
DEFINITION = re.compile(r"^\s*(?:ROOT )?%(\S+) = (.*?) ([a-z][\w\-]*)\(([^)]*)")
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")


class Collective(NamedTuple):
    """A kind of collective of a program. elements, bytes: of the whole array, gathered or not yet scattered. group:
    chips that take part.
    """

    kind: str
    elements: int
    bytes: int
    group: int


def arrays(text: str) -> list[tuple[int, int]]:
    """(elements, bytes) of every array type in a piece of HLO."""
    sizes = [(math.prod(map(int, filter(None, dims.split(",")))), BYTES[dtype]) for dtype, dims in ARRAY.findall(text)]
    return [(n, n * size) for n, size in sizes]


def group_size(line: str) -> int:
    """Chips of one replica group, in any of the ways XLA writes them."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return 2  # a permutation has pairs of source and target


def collectives(text: str) -> list[tuple[Collective, str]]:
    """Every collective once, and the computation that it stands in. XLA writes one that runs beside computation into
    several fusions, always with its channel's number and the same origin. Layers, which are traced as one function,
    share their channels' numbers; their origins name them. One without an origin is in one piece.

    An all-reduce whose computation keeps one slice of the sum is what the TPU backend makes of a reduce-scatter, and
    counts as one.
    """
    seen: dict[tuple[str, str], tuple[Collective, str]] = {}
    computation = ""
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            computation = line.removeprefix("ENTRY ").removeprefix("%").split(" ")[0]
        channel = re.search(r"channel_id=(\d+)", line)
        operation = channel and DEFINITION.match(line)
        kind = operation and operation[3].removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        parts = arrays(operation[2])
        elements, size = max(parts) if operation[3].endswith("-start") else tuple(map(sum, zip(*parts)))
        group = group_size(line)
        if kind == "reduce-scatter":
            elements, size = elements * group, size * group
        if kind == "all-reduce" and "all-reduce-scatter" in computation.split("(")[0]:
            kind = "reduce-scatter"
        origin = re.search(r'op_name="([^"]*)"', line)
        name = channel[1], origin[1] if origin else operation[1]
        seen.setdefault(name, (Collective(kind, elements, size, group), computation))
    return sorted(seen.values())


def float32_products(text: str) -> int:
    """Matrix products both of whose operands are float32."""
    types: dict[str, str] = {}
    products = set()
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            types = {}
        if operation := DEFINITION.match(line):
            name, result, kind, operands = operation.groups()
            types[name] = result.split("[")[0]
            if kind in ("convolution", "dot"):
                names = [o.strip().lstrip("%") for o in operands.split(",")]
                if [types.get(n) for n in names[:2]] == ["f32", "f32"]:
                    products.add(re.sub(r"\.clone.*|\.\d+$", "", name) + result)
    return len(products)


def seconds_sent(sent: list[Collective], link: float) -> float:
    """Seconds the collectives take on rings that move `link` bytes/s through each chip, one after the other, with
    nothing beside them.
    """
    passes = {"all-reduce": 2.0}
    return sum(passes.get(c.kind, 1.0) * c.bytes * (c.group - 1) / c.group / link for c in sent if c.group > 1)
