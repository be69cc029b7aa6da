"""What a step must do at least, in bytes and FLOPs, and how quickly a chip could do just that.

Counted are the matrix products with weights, and what lies in memory and must be read or written once: weights, the
cache, gradients and optimizer. Attention's own products and elementwise passes are left out, so that a measured share
of the bound is never flattered by them.
"""

from typing import NamedTuple

import jax

from pmc_jax.models import Decoder, ModelConfig, weights
from pmc_jax.plan.topology import CHIPS, GPUS

# numbers moved a parameter: the gradient written; then read, with the parameter and two moments; these three written
OPTIMISER = 8


class Peak(NamedTuple):
    """flops: dense bfloat16 FLOP/s. bandwidth: bytes/s of the chip's memory."""

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """What a step does at least. bytes: to and from the chip's memory."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes


PEAKS = {name.upper() if name in GPUS else name: Peak(c.flops, c.bandwidth) for name, c in CHIPS.items()}
KINDS = {
    "A100-SXM4-80GB": "A100",
    "H100": "H100",
    "H200": "H200",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
}  # in JAX's words, special ones first


def peak_of(kind: str) -> Peak | None:
    """The peak of a `jax.Device.device_kind`; None where it is not known, as a CPU's."""
    return next((PEAKS[name] for words, name in KINDS.items() if words in kind), None)


def seconds(work: Work, peak: Peak) -> float:
    """The bound: products or memory, whichever takes longer."""
    return max(work.flops / peak.flops, work.bytes / peak.bandwidth)


def limit(work: Work, peak: Peak) -> str:
    """What the bound is made of: "compute" or "memory"."""
    return "compute" if work.intensity > peak.flops / peak.bandwidth else "memory"


def multiplied(model: Decoder) -> tuple[int, int]:
    """Parameters that every position is multiplied with: those of the layers, and those of the head."""
    tree = weights.abstract_params(model)
    layers = sum(x.size for name, part in tree.items() if name.startswith("layer_") for x in jax.tree.leaves(part))
    return layers, model.config.vocab_size * model.config.width


def slot_bytes(config: ModelConfig, itemsize: int) -> int:
    """Bytes of one token's keys and values, all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize


def decode_work(model: Decoder, rows: float, own: float, prompts: float, prompt: float, itemsize: int) -> Work:
    """One decode step: every weight read once, and the keys and values of `own` answer tokens a row and of `prompts`
    prompts of `prompt` tokens.
    """
    each = sum(multiplied(model))
    return Work(2 * each * rows, each * itemsize + slot_bytes(model.config, itemsize) * (rows * own + prompts * prompt))


def prefill_work(model: Decoder, tokens: int, drawn_from: int, itemsize: int) -> Work:
    """Reading `tokens` tokens of prompts and drafts: logits after `drawn_from` of them, keys and values written."""
    layers, head = multiplied(model)
    return Work(
        2 * layers * tokens + 2 * head * drawn_from,
        (layers + head) * itemsize + slot_bytes(model.config, itemsize) * tokens,
    )


def update_work(model: Decoder, positions: float, labels: float, itemsize: int) -> Work:
    """One update on so many positions and labels: forward and backward pass, each reading the weights, and AdamW."""
    layers, head = multiplied(model)
    return Work(6 * layers * positions + 6 * head * labels, (2 + OPTIMISER) * (layers + head) * itemsize)
