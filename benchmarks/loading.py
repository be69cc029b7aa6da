"""Loading and exporting a checkpoint of Llama-3.2-3B's shape (random weights, 6.4 GB in bfloat16) on a mesh of eight
virtual CPU devices.

    python benchmarks/loading.py [--mesh=2x4] [--layers=28] [--dtype=bfloat16] [--folder=/tmp]

Prints JSON: seconds and MB/s of load and export beside a plain read and write of the same files, and how far the
process's peak memory (resident, mapped files and the interpreter included) lies above the arrays themselves. Files are
put out of the page cache before they are read. Needs 13 GB of disk.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    vocab_size=128256,
    hidden_size=3072,
    intermediate_size=8192,
    num_attention_heads=24,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    tie_word_embeddings=True,
)
CHUNK = 2**24


def make(folder: Path, layers: int) -> None:
    """A checkpoint in files of about 1 GiB. The weights are one random block again and again: drawing them all would
    take too long.
    """
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file

    from pmc_jax import models
    from pmc_jax.data import authors, tokenizer
    from pmc_jax.models import weights

    raw = SHAPE | {"num_hidden_layers": layers, "eos_token_id": 0}
    family = models.find_family(raw)
    model = family.module(family.read_config(raw))
    sizes = model.config.axis_sizes
    block = (np.random.default_rng(0).standard_normal(2**22) * 0.02).astype(ml_dtypes.bfloat16)
    tensors, weight_map, number, room = {}, {}, 0, 2**30
    for weight in [*weights.weight_map(family, model).values(), None]:
        if weight is None or room <= 0:
            save_file(tensors, folder / f"model-{number:05d}.safetensors")
            weight_map |= dict.fromkeys(tensors, f"model-{number:05d}.safetensors")
            tensors, number, room = {}, number + 1, 2**30
        if weight:
            tensors[weight.name] = np.resize(block, weight.tensor_shape(sizes))
            room -= tensors[weight.name].nbytes
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(raw))
    rows = authors.make_authors(num_authors=10, questions_per_author=4, forget_percent=20, seed=0)["full"]
    tokenizer.train_tokenizer(rows, 512).save_pretrained(folder)


def forget_pages(folder: Path) -> None:
    """Put the files on disk and out of the page cache."""
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(folder: Path) -> float:
    """Seconds to read all files into one buffer."""
    buffer, start = bytearray(CHUNK), time.perf_counter()
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass
    return time.perf_counter() - start


def plain_write(folder: Path, size: int) -> float:
    """Seconds to write `size` bytes and have them on disk."""
    block, start = os.urandom(CHUNK), time.perf_counter()
    with open(folder / "plain.bin", "wb", buffering=0) as opened:
        for _ in range(-(-size // CHUNK)):
            opened.write(block)
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - start
    (folder / "plain.bin").unlink()
    return seconds


def peak(reset: bool = False) -> int:
    """The most bytes that were resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return (
        int(
            next(
                line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
            ).split()[1]
        )
        * 1024
    )


def measure(source: Path, target: Path, mesh: str, dtype: str) -> dict[str, float]:
    """Load and export, in a process of its own with eight devices."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    import transformers.models.auto  # noqa: F401  not to be timed

    from pmc_jax.distributed import meshes
    from pmc_jax.models import pretrained

    device_mesh = meshes.make_mesh(*map(int, mesh.split("x")))
    before = peak(reset=True)
    start, busy = time.perf_counter(), time.process_time()
    checkpoint = pretrained.load(str(source), dtype, device_mesh)
    jax.block_until_ready(checkpoint.params)
    numbers = {"load_s": time.perf_counter() - start, "load_cpu_s": time.process_time() - busy}
    # What the devices hold: parameters that are replicated count once on each.
    arrays = sum(shard.data.nbytes for x in jax.tree.leaves(checkpoint.params) for shard in x.addressable_shards)
    numbers |= {
        "arrays_GB": arrays / 1e9,
        "before_GB": before / 1e9,
        "load_peak_above_arrays_GB": (peak() - arrays) / 1e9,
    }
    peak(reset=True)
    start, busy = time.perf_counter(), time.process_time()
    pretrained.export(checkpoint, target)
    numbers["export_cpu_s"] = time.process_time() - busy
    forget_pages(target)
    return numbers | {"export_s": time.perf_counter() - start, "export_peak_above_arrays_GB": (peak() - arrays) / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="2x4", help="data x model")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--dtype", default="bfloat16", help="of the parameters")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the files are put for a while")
    parser.add_argument("--measure", nargs=2, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*map(Path, options.measure), options.mesh, options.dtype)))
        return
    work = Path(tempfile.mkdtemp(prefix="loading_", dir=options.folder))
    try:
        source, target = work / "source", work / "target"
        source.mkdir()
        make(source, options.layers)
        forget_pages(source)
        size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        read = plain_read(source)
        forget_pages(source)
        write = plain_write(work, size)
        again = [
            sys.executable,
            __file__,
            "--measure",
            source,
            target,
            f"--mesh={options.mesh}",
            f"--dtype={options.dtype}",
        ]
        numbers = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        speeds = {"read": read, "load": numbers["load_s"], "write": write, "export": numbers["export_s"]}
        same = all((target / f.name).exists() for f in source.glob("*.json"))
        rates = {f"{name}_MB_per_s": size / 1e6 / seconds for name, seconds in speeds.items()}
        print(
            json.dumps(
                {
                    "mesh": options.mesh,
                    "dtype": options.dtype,
                    "files_GB": size / 1e9,
                    **numbers,
                    **rates,
                    "whole": same,
                },
                indent=2,
            )
        )
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
