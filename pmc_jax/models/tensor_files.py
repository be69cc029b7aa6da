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

from pmc_jax.data.files import check_pointer
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError, few, first_line

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".bin.index.json")
OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx", ".gguf", ".npz")
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # numpy's name -> safetensors' name


class Stored(NamedTuple):
    """A tensor in a file.

    Attributes:
        file: where it is.
        shape: of the tensor.
        dtype: as safetensors calls it, such as "BF16".
        name: what it is called there, where that is another name than it is used by; else empty.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    name: str = ""

    def called(self, name: str) -> "Stored":
        """The same, by the name that it has in its file."""
        return self._replace(name=self.name or name)

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
            yield file.get_slice(self.name or name)


def file_name(index: int, count: int) -> str:
    """The name of file number `index` of `count`."""
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def file_names(folder: Path) -> list[str]:
    """The names of the checkpoint's safetensors files.

    model.safetensors comes first: transformers opens it too where an older index and its shards lie beside it.

    Raises:
        UserError: there are none, or their index is broken.
    """
    if os.path.lexists(folder / WHOLE):
        return [WHOLE]
    index = folder / INDEX
    if not index.exists():
        raise UserError(f"{folder}: no {WHOLE}: {_instead(folder)}")
    check_pointer(index)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise UserError(f"{index}: not an index of safetensors files: no valid JSON with a 'weight_map'") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in (".", ".."):
            raise UserError(
                f"{index}: names {name!r}, which is no file of its own folder; take the original index again"
            )
        if not name.endswith(".safetensors"):
            raise UserError(f"{index}: names {name!r}; only safetensors are read: save the weights as safetensors")
    return names


def _instead(folder: Path) -> str:
    """What lies in the place of safetensors files, and what to do."""
    names = sorted(file.name for file in folder.iterdir())
    pickled = [name for name in names if name.endswith(PICKLED)]
    if pickled:
        return f"only {pickled[0]}, and pickled weights are never opened; save it as safetensors first"
    others = [name for name in names if name.endswith((".safetensors", *OTHER_WEIGHTS))]
    adapter = next((name for name in others if name.startswith("adapter")), "")
    if adapter:
        return f"only {adapter}, an adapter's weights; merge it into its model first"
    if others:
        return f"only {few(others, 3)}; save the model as safetensors with transformers' save_pretrained"
    return "none is there; download the checkpoint again"


def find_tensors(folder: Path) -> dict[str, Stored]:
    """{name: tensor} over one or many files.

    Raises:
        UserError: a file is missing, cut short or not safetensors, or two files hold the same tensor.
    """
    tensors: dict[str, Stored] = {}
    for name in file_names(folder):
        try:
            check_pointer(folder / name)
            with safe_open(folder / name, framework="numpy") as file:
                slices = {tensor: file.get_slice(tensor) for tensor in file.keys()}
                own = {
                    tensor: Stored(folder / name, tuple(s.get_shape()), s.get_dtype()) for tensor, s in slices.items()
                }
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{folder / name}: cannot be read as safetensors (truncated or missing?): {first_line(error)[:80]}; "
                "download it again"
            ) from None
        twice = next((tensor for tensor in own if tensor in tensors), "")
        if twice:
            raise UserError(
                f"{folder}: {twice} is in {tensors[twice].file.name} and in {name}; remove the file that is left over"
            )
        tensors |= own
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
