"""Compiled HLO text taken apart: computations, operations, sizes in the chip's tiles, and products."""

import functools
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
ARRAY = re.compile(
    r"\b("
    + "|".join(BYTES)
    + r")\[([\d,]*)\](?:\{([\d,]*)(?::(?:T\((\d+(?:,\d+)?)\))?(?:\([\d,]+\))*(S\(\d+\))?)?[^}]*\})?"
)
OPERATION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*?)\)(?=, |$)(.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")


class Operation(NamedTuple):
    """One line of a computation. rest: attributes."""

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    rest: str

    def called(self, attribute: str = "calls") -> str:
        """The name of the computation that it calls."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return match[1] if match else ""


class Computation(NamedTuple):
    """operations: by name, in their order. root: the one that is the result."""

    operations: dict[str, Operation]
    root: str


class Module(NamedTuple):
    """computations: by name. entry: the name of the one that a run starts with."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """The text of a compiled module taken apart."""
    computations: dict[str, Computation] = {}
    entry, name, operations, root = "", "", {}, ""
    for line in text.splitlines():
        if start := COMPUTATION.match(line):
            name, operations, root = start[2], {}, ""
            entry = name if start[1] else entry
        elif line.startswith("}"):  # an attribute may follow
            computations[name] = Computation(operations, root)
        elif match := OPERATION.match(line):
            literal = match[4] in ("parameter", "constant")
            operands = (match[5],) if literal else tuple(re.findall(r"%([\w.\-]+)", match[5]))
            operations[match[2]] = Operation(match[2], match[3], match[4], operands, match[6])
            root = match[2] if match[1] else root
    return Module(computations, entry)


def padded(length: int, tile: int) -> int:
    """A length filled up to whole tiles."""
    return -(-length // tile) * tile


@functools.cache
def sizes_of(shape: str) -> tuple[tuple[int, bool], ...]:
    """(bytes, filled up to its tiles; whether it lies in the chip's main memory) of each array of a shape."""
    sizes = []
    for dtype, dims, order, tile, fast in ARRAY.findall(shape):
        lengths = [int(n) for n in dims.split(",") if n]
        minor_first = [lengths[int(axis)] for axis in order.split(",")] if order else lengths[::-1]
        for i, side in enumerate(reversed(tile.split(",")) if tile else ()):
            if i < len(minor_first):
                # A tile along one axis is a row of memory, and short arrays take as little as they need of it.
                minor_first[i] = padded(minor_first[i], min(int(side), 128) if "," not in tile else int(side))
        sizes.append((math.prod(minor_first) * BYTES[dtype], not fast))
    return tuple(sizes)


def size_of(shape: str) -> int:
    """Bytes of all arrays of a shape in the chip's main memory."""
    return sum(size for size, main in sizes_of(shape) if main)


def anywhere(shape: str) -> int:
    """Bytes of all arrays of a shape, in whichever memory."""
    return sum(size for size, _ in sizes_of(shape))


def arrays(shape: str) -> list[tuple[int, int]]:
    """(elements, bytes) of each array of a shape, without what fills up its tiles."""
    sizes = [
        (math.prod(int(n) for n in dims.split(",") if n), BYTES[dtype]) for dtype, dims, *_ in ARRAY.findall(shape)
    ]
    return [(n, n * size) for n, size in sizes]


def dims_of(shape: str) -> list[int]:
    """Lengths of the axes of the first array of a shape."""
    match = ARRAY.search(shape)
    return [int(n) for n in match[2].split(",") if n] if match else []


def product_flops(computation: Computation, op: Operation) -> float:
    """FLOPs of a convolution, as which a TPU's products are written, of a dot or of a call of cuBLAS; 0 of
    anything else.
    """
    if op.kind == "convolution":
        labels = re.search(r"dim_labels=\w+?_(\w+?)->", op.rest)[1]
        weights = dims_of(computation.operations[op.operands[1]].shape)
        window = re.search(r"window=\{([^}]*)\}", op.rest)
        sizes = re.search(r"size=([\dx]+)", window[1]) if window else None
        # Batches of products are written as windows that are moved over padding: one tap of each is no padding.
        taps = (
            1
            if not sizes or re.search("pad=|lhs_dilate=", window[1])
            else math.prod(int(n) for n in sizes[1].split("x"))
        )
        return 2.0 * math.prod(dims_of(op.shape)) * weights[labels.index("i")] * taps
    if op.kind == "dot":
        lengths = dims_of(computation.operations[op.operands[0]].shape)
        axes = re.search(r"lhs_contracting_dims=\{([\d,]+)\}", op.rest)[1].split(",")
        return 2.0 * math.prod(dims_of(op.shape)) * math.prod(lengths[int(axis)] for axis in axes)
    if op.kind == "custom-call" and "__cublas" in op.rest:
        lengths = dims_of(computation.operations[op.operands[0]].shape)
        axes = re.search(r'"lhs_contracting_dimensions":\["([\d",]+)"\]', op.rest)[1].split('","')
        return 2.0 * math.prod(dims_of(op.shape)) * math.prod(lengths[int(axis)] for axis in axes)
    return 0.0
