"""The GGUF format: a header of metadata and tensor names, then the tensors' bytes.

Described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The library `gguf` dequantises the tensors. The
header is read here: the library's reader takes 4 s for a vocabulary of 49,000 tokens, and this one .1 s.
"""

import contextlib
import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FLOAT32, STRING, ARRAY = 6, 8, 9


class StoredTensor(NamedTuple):
    """A tensor in the file; `tensor[index]` reads and dequantises only the rows of `index`.

    Attributes:
        file: the GGUF file.
        offset: where its bytes begin in the file.
        kind: gguf.GGMLQuantizationType.
        shape: in Hugging Face's order, output rows first.
        row_bytes: bytes of one row (of the whole tensor, when it has one axis).
        heads: number of heads whose rows llama.cpp stores interleaved; 0 = rows are in Hugging Face's order.
        added: what llama.cpp added to the numbers, and reading takes off again.
    """

    file: Path
    offset: int
    kind: Any
    shape: tuple[int, ...]
    row_bytes: int
    heads: int = 0
    added: float = 0.0

    @property
    def dtype(self) -> str:
        """What reading gives, as safetensors calls it."""
        return "F32"

    @property
    def num_bytes(self) -> int:
        return self.row_bytes * math.prod(self.shape[:-1])

    def open(self, name: str) -> contextlib.AbstractContextManager:
        """A context that gives the tensor by slices. The file is mapped only while a slice is read."""
        return contextlib.nullcontext(self)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        values = self.stored(index)
        return values - np.float32(self.added) if self.added else values

    def stored(self, index: tuple[slice, ...]) -> np.ndarray:
        """The numbers of the file at `index`, float32."""
        from gguf.quants import dequantize

        rows_RB = np.memmap(self.file, np.uint8, "r", self.offset, (math.prod(self.shape[:-1]), self.row_bytes))
        if len(self.shape) == 1:
            values = np.asarray(dequantize(rows_RB, self.kind), np.float32)[0]
            return values[self.row_order()][index]
        rows_RB = rows_RB[self.row_order()[index[0]] if self.heads else index[0]]
        return np.asarray(dequantize(rows_RB, self.kind), np.float32)[:, index[1]]

    def row_order(self) -> np.ndarray:
        """Row of the file for each row of Hugging Face's tensor.

        Rotary pairs are neighbours in a head of llama.cpp (0 1, 2 3, ...), and half a head apart in Hugging Face's.
        """
        rows = np.arange(self.shape[0])
        return rows.reshape(self.heads, -1, 2).swapaxes(1, 2).reshape(-1) if self.heads else rows


class Header(NamedTuple):
    """The metadata by key, and the tensors by llama.cpp's name."""

    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


class Fields(NamedTuple):
    """A header, and the metadata of its architecture by the rest of the key."""

    file: Path
    architecture: str
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def key(self, name: str) -> str:
        """The whole key."""
        return f"{self.architecture}.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """A value of any kind."""
        return self.metadata.get(self.key(name), default)

    def number(self, name: str, default: Any = None) -> Any:
        """A number above 0, `default` where the file does not state it; UserError for anything else."""
        value, key = self.get(name, default), self.key(name)
        if value is None:
            raise UserError(f"{self.file}: its metadata has no {key!r}")
        if isinstance(value, list):
            raise UserError(f"{self.file}: {key} differs between layers, which is not supported")
        if isinstance(value, (str, bool)) or not 0 < value < float("inf"):
            raise UserError(f"{self.file}: {key} is {value!r}; must be a number above 0")
        return value


class Damaged(Exception):
    """The bytes do not follow the format."""


class Cursor:
    """Reads little-endian values one after another, and never past the end."""

    def __init__(self, data: Any):
        self.data, self.position = data, 0

    def numbers(self, letter: str, count: int = 1) -> tuple:
        begin, size = self.position, struct.calcsize(f"<{letter}") * count
        if size > len(self.data) - begin:
            raise Damaged(f"it ends within its header, at byte {len(self.data)}")
        self.position += size
        return struct.unpack_from(f"<{count}{letter}", self.data, begin)

    def string(self) -> str:
        begin = self.position + 8
        (length,) = self.numbers("Q")
        if length > len(self.data) - begin:
            raise Damaged(f"it ends within its header, at byte {len(self.data)}")
        self.position += length
        try:
            return self.data[begin : begin + length].decode("utf-8")
        except UnicodeDecodeError:
            raise Damaged(f"text at byte {begin} is not UTF-8") from None

    def value(self) -> Any:
        """A metadata value with its type before it: a number, a string, or a list of either."""
        (kind,) = self.numbers("I")
        if kind != ARRAY:
            return self.items(kind, 1)[0]
        (kind,), (count,) = self.numbers("I"), self.numbers("Q")
        return self.items(kind, count)

    def items(self, kind: int, count: int) -> list[Any]:
        if kind == STRING:
            return [self.string() for _ in range(count)]
        if kind not in SCALARS:
            raise Damaged(f"a value at byte {self.position} has type {kind}, which the format does not know")
        values = self.numbers(SCALARS[kind], count)
        return [float(str(np.float32(v))) for v in values] if kind == FLOAT32 else list(values)  # 1e-05, as it was told


def read_header(file: Path) -> Header:
    """Metadata and tensors of a GGUF file; UserError when the file is not one, or is cut or damaged."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError(f"{file}: reading GGUF needs a library that is not here: pip install 'pmc-jax[gguf]'") from None
    size = file.stat().st_size
    with open(file, "rb") as stream:
        if stream.read(4) != MAGIC:
            raise UserError(f"{file}: not a GGUF file (it does not begin with the letters GGUF)")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = parse_header(file, Cursor(data))
            except Damaged as error:
                raise UserError(f"{file}: cut or damaged: {error}") from None
    for name, tensor in header.tensors.items():
        if tensor.offset + tensor.num_bytes > size:
            end = tensor.offset + tensor.num_bytes
            raise UserError(f"{file}: cut or damaged: {name} ends at byte {end} of a file of {size}")
    return header


def parse_header(file: Path, cursor: Cursor) -> Header:
    """The header after the format: magic, version, counts, metadata, tensors; the tensors' bytes follow it."""
    cursor.position = len(MAGIC)
    (version,) = cursor.numbers("I")
    if version not in (2, 3):
        other = " (its bytes are in big-endian order)" if version and version % 65536 == 0 else ""
        raise UserError(f"{file}: GGUF version {version}{other} is not supported; supported: 2 and 3, little-endian")
    num_tensors, num_values = cursor.numbers("Q", 2)
    metadata = {}
    for _ in range(num_values):
        key = cursor.string()
        metadata[key] = cursor.value()
    entries = []
    for _ in range(num_tensors):
        name, (num_axes,) = cursor.string(), cursor.numbers("I")
        entries.append((name, cursor.numbers("Q", num_axes), *cursor.numbers("I"), *cursor.numbers("Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise Damaged(f"general.alignment is {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    return Header(metadata, {name: read_entry(file, start, name, *rest) for name, *rest in entries})


def read_entry(file: Path, start: int, name: str, axes: tuple[int, ...], kind: int, offset: int) -> StoredTensor:
    """One tensor from its line in the header; UserError for a type that the library does not dequantise."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        label = getattr(kind, "name", f"number {kind}")
        raise UserError(f"{file}: {name} has tensor type {label}, which the library gguf cannot dequantise") from None
    if not axes or axes[0] % block:
        raise Damaged(f"{name} has shape {axes}, and rows of {kind.name} come in blocks of {block}")
    return StoredTensor(file, start + offset, kind, axes[::-1], axes[0] // block * block_bytes)
