"""NVIDIA GPUs that are not here, to compile for: what XLA must know of a card, from its data sheet.

Kernels are not timed against each other then, so a card may take other kernels for its products. Memory, collectives
and what must be read are those of the program.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import jax

from pmc_jax.errors import UserError, first_line


class Card(NamedTuple):
    """What a compiler is told of a card beside memory and bandwidth.

    Attributes:
        name: as the driver calls it.
        capability: CUDA compute capability, (major, minor).
        cores: streaming multiprocessors.
        fpus: float32 units of each.
        shared: bytes of shared memory of each.
        l2: bytes of the second cache.
        clock: boost, GHz.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    shared: int
    l2: int
    clock: float


# Source: NVIDIA's data sheets and architecture white papers of A100, H100 and H200, SXM modules.
CARDS = {
    "a100": Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * 2**10, 40 * 2**20, 1.41),
    "h100": Card("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
    "h200": Card("NVIDIA H200", (9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
}
RESERVED = 2**10  # bytes of shared memory that CUDA keeps of each block
NEEDED = "jax_cuda12_plugin", "nvidia.cudnn"  # what compiles, and what has the kernels of attention


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package that it would be in
        return False


def target_config(card: Card, memory: float, bandwidth: float) -> str:
    """XLA's description of a card, as text.

    Args:
        card: the card.
        memory: its bytes.
        bandwidth: bytes/s of its memory.
    """
    major, minor = card.capability
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 2**10,
        "shared_memory_per_core": card.shared,
        "shared_memory_per_block_optin": card.shared - RESERVED,
        "threads_per_core_limit": 2048,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "core_count": card.cores,
        "fpus_per_core": card.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "memory_bandwidth": round(bandwidth),
        "device_memory_size": round(memory),
        "l2_cache_size": card.l2,
        "clock_rate_ghz": card.clock,
    }
    lines = [f"  {name}: {value}" for name, value in fields.items()]
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor} }}")
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 10 }",
            "runtime_version { major: 12 minor: 9 }",
            f'device_description_str: "{card.name}"',
        ]
    )


def devices(kind: str, nodes: int, each: int, memory: float, bandwidth: float) -> list[Any]:
    """The cards of so many nodes.

    Args:
        kind: one of CARDS.
        nodes: how many.
        each: cards of a node.
        memory: bytes of a card.
        bandwidth: bytes/s of its memory.

    Raises:
        UserError: JAX's CUDA plugin or cuDNN is not installed.
    """
    if not all(map(is_installed, NEEDED)):
        raise UserError(
            f"--topology={kind}: compiling needs JAX's CUDA plugin and cuDNN: pip install 'pmc-jax[plan-gpu]' (3 GB; "
            "no card is needed); or give --compile=none"
        )
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # no driver is asked for its version
    jax.config.update("jax_enable_compilation_cache", False)
    from jax.experimental import topologies

    config = target_config(CARDS[kind], memory, bandwidth)
    try:
        described = topologies.get_topology_desc(
            platform="cuda", topology_name=kind, topology=f"1x{nodes}x{each}", target_config=config
        )
    except (jax.errors.JaxRuntimeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"--topology={kind}: the GPU compiler cannot be used: {first_line(error)}") from None
    return list(described.devices)
