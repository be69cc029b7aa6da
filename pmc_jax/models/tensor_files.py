"""Safetensors files of a checkpoint folder: which tensors are there, and writing them one at a time."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError

INDEX = "model.safetensors.index.json"
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # numpy's name -> safetensors' name


class Stored(NamedTuple):
    """A tensor in a file.

    Attributes:
        file: where it is.
        shape: of the tensor.
        dtype: as safetensors calls it, such as "BF16".
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self) -> np.dtype:
        """Its dtype as numpy calls it."""
        return np.dtype(next(name for name, code in DTYPES.items() if code == self.dtype))

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """The tensor, to be read by slices: the pages of a mapped file count as memory for as long as it is open."""
        with safe_open(self.file, framework="numpy") as file:
            yield file.get_slice(name)


def file_name(index: int, count: int) -> str:
    """The name of file number `index` of `count`."""
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def file_names(folder: Path) -> list[str]:
    """The names of the checkpoint's safetensors files.

    Raises:
        UserError: there are none, or their index is broken.
    """
    index = folder / INDEX
    if index.exists():
        try:
            return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of safetensors files: no valid JSON with a 'weight_map'") from None
    if (folder / "model.safetensors").exists():
        return ["model.safetensors"]
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    reason = (
        f"only {pickled[0]}, and pickled weights are never opened; save it as safetensors first"
        if pickled
        else "none is there"
    )
    raise UserError(f"{folder}: no model.safetensors: {reason}")


def find_tensors(folder: Path) -> dict[str, Stored]:
    """{name: tensor} over one or many files.

    Raises:
        UserError: a file is missing, cut short or not safetensors.
    """
    tensors: dict[str, Stored] = {}
    for name in file_names(folder):
        try:
            with safe_open(folder / name, framework="numpy") as file:
                slices = {tensor: file.get_slice(tensor) for tensor in file.keys()}
                tensors |= {
                    tensor: Stored(folder / name, tuple(s.get_shape()), s.get_dtype()) for tensor, s in slices.items()
                }
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{folder / name}: cannot be read as safetensors (truncated or missing?): {error}"
            ) from None
    return tensors


def write_file(file: Path, shapes: dict[str, tuple[Any, tuple[int, ...]]], tensors: Iterable[np.ndarray]) -> None:
    """Write a safetensors file tensor by tensor on the first process; the library's own writer wants all at once.

    The format: the header's length as 8 bytes, the header as JSON padded to 8, the data.

    Args:
        file: where to.
        shapes: (dtype, shape) by name.
        tensors: in the order of `shapes`. All processes take them all, since bringing one together is a joint effort.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[str(dtype)], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with open(file if multihost.is_primary() else os.devnull, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            out.write(np.ascontiguousarray(tensor).view(np.uint8).data)


def copy_tensors(file: Path, tensors: dict[str, Stored]) -> None:
    """Write tensors of other files into one, as they are, on the first process."""

    def read(name: str) -> np.ndarray:
        with safe_open(tensors[name].file, framework="numpy") as source:
            return source.get_tensor(name)

    write_file(file, {name: (x.numpy_dtype, x.shape) for name, x in tensors.items()}, map(read, tensors))


def write_index(folder: Path, files: dict[str, str], total_bytes: int) -> None:
    """Write which tensor is in which file, on the first process."""
    if multihost.is_primary():
        index = {"metadata": {"total_size": total_bytes}, "weight_map": files}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + os.linesep)
