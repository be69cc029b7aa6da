"""What a kind of device runs best with. Everything that only a CPU needs is here."""

from typing import NamedTuple

from jax.sharding import AbstractMesh, Mesh


class DeviceKind(NamedTuple):
    """Sizes and habits that suit one kind of device. They change the speed; only `compute_dtype` changes
    results, by its rounding.

    Attributes:
        prefill_positions: prompt positions that are read at once on each data shard.
        first_slots: answer slots of the largest decode batch at first, tokens.
        refill: whether rows whose answer ends go on with the next one (sampling/lanes.py); otherwise a batch shrinks.
        look_steps: decode steps between two looks of the host, where rows are refilled.
        decode_ahead: whether the next chunk is decoded while the host scores the last one.
        micro_batch_positions: positions of a micro-batch on each data shard, where their number is left open, and up to
            half as many more where fewer are left empty then; 0 = the whole batch is one micro-batch.
        compute_dtype: of the forward and backward pass where it is left open; empty = the parameters' own.
        scan: how many periods of layers a turn of the loop over layers runs; 0 = no loop, the compiler sees each layer.
        logits_at_once: float32 logits alive at a time on each data shard in the loss, before `mesh.model` splits them.
            More labels are worked off in chunks.
        fused_attention: whether cuDNN's attention is used where it has a kernel (models/fused_attention.py).
    """

    prefill_positions: int
    first_slots: int
    refill: bool
    look_steps: int
    decode_ahead: bool
    micro_batch_positions: int
    compute_dtype: str
    scan: int
    logits_at_once: int
    fused_attention: bool


# A CPU is as fast at few positions as at many, and late rounds have few questions left to read. Its decode steps of
# many rows are bound by the bytes of all slots, the free ones included. Host and device are the same there: a chunk
# decoded for rows that the host then prunes is lost time. Micro-batches: docs/decisions.md.
# It has no units for bfloat16 products. A loop over layers would copy each layer's weights out of the stack.
CPU = DeviceKind(
    prefill_positions=256,
    first_slots=32,
    refill=False,
    look_steps=8,
    decode_ahead=False,
    micro_batch_positions=256,
    compute_dtype="",
    scan=0,
    logits_at_once=2**24,
    fused_attention=False,
)
ACCELERATOR = DeviceKind(
    prefill_positions=4096,
    first_slots=64,
    refill=True,
    look_steps=16,
    decode_ahead=True,
    micro_batch_positions=0,
    compute_dtype="bfloat16",
    scan=1,
    logits_at_once=2**27,
    fused_attention=False,
)


# A GPU's kernels for products take no slice of a stack: in a loop each layer's weights and cache would be copied first.
GPU = ACCELERATOR._replace(scan=0, logits_at_once=2**28, fused_attention=True)


def device_kind(mesh: Mesh | AbstractMesh) -> DeviceKind:
    """The kind of a mesh's devices. A mesh of shapes only stands for accelerators."""
    platform = mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else ""
    return {"cpu": CPU, "gpu": GPU, "cuda": GPU}.get(platform, ACCELERATOR)


def choose_compute_dtype(wanted: str, mesh: Mesh | AbstractMesh) -> str:
    """The dtype of the forward and backward pass: what is wanted, or what suits the devices where that is empty."""
    return wanted or device_kind(mesh).compute_dtype
