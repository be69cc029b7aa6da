"""What a run says of its speed, and the profiles it takes: how many tokens a second, how much of the chip, how much
memory.
"""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError, telling_file_errors
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.plan import roofline
from pmc_jax.settings.setting import names_in
from pmc_jax.training.watch import Watch, Worked

Speed = dict[str, float | None]


class RunWatch(Watch):
    """Measures the speed of each round, and profiles some.

    Args:
        checkpoint: the model that is trained, before its parameters are given away.
        folder: where profiles go.
        profiled: numbers of the rounds to profile.
    """

    def __init__(self, checkpoint: PretrainedModel, folder: Path, profiled: frozenset[int] = frozenset()):
        self.folder, self.profiled = folder, profiled
        self.model, mesh = checkpoint.model, meshes.mesh_of(checkpoint.params)
        peak = roofline.peak_of(mesh.devices.flat[0].device_kind)
        self.flops = peak and peak.flops * mesh.size
        self.speed: Speed = {}

    @contextlib.contextmanager
    def around(self, number: int) -> Iterator[None]:
        """A trace of the round on the first process's devices, where it is wanted."""
        if number not in self.profiled or not multihost.is_primary():
            yield
            return
        folder = self.folder / f"round_{number:05d}"
        with telling_file_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with jax.profiler.trace(str(folder)):
            yield

    def worked(self, number: int, worked: Worked) -> None:
        """Note the round's speed."""
        self.speed = speed_of(worked, self.flops and self.model_flops(worked) / self.flops)

    def model_flops(self, worked: Worked) -> float:
        """FLOPs that the round's updates need at least: what remat does again, and padding, do not count."""
        return roofline.update_work(self.model, worked.positions, worked.labels, itemsize=1).flops


def speed_of(worked: Worked, ideal_seconds: float | None) -> Speed:
    """What metrics.jsonl says of a round's speed; None for what was not done, or is not known.

    Args:
        worked: what was done in which time.
        ideal_seconds: what the updates would take at the chips' peak; None where that is not known, as a CPU's.

    Returns:
        tokens_per_second: training tokens, without padding. answer_tokens_per_second: of sampled answers. mfu: model
        FLOPs utilisation of the updates, 0 to 1. peak_memory: bytes of the fullest device here since the start; on a
        CPU of the process.
    """
    trained, w = worked.positions and worked.update_seconds, worked
    return {
        "tokens_per_second": w.positions / w.update_seconds if trained else None,
        "answer_tokens_per_second": w.sampled_tokens / w.sample_seconds if w.sampled_tokens else None,
        "mfu": ideal_seconds / w.update_seconds if trained and ideal_seconds is not None else None,
        "peak_memory": peak_memory(),
    }


def peak_memory() -> float:
    """Bytes at most in use on the fullest of this process's devices; the process's own where they do not tell."""
    told = [stats["peak_bytes_in_use"] for d in jax.local_devices() if (stats := d.memory_stats())]
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return float(max(told, default=resident))


def profiled_rounds(text: str, total: int) -> frozenset[int]:
    """The rounds in "2" or "2,3". UserError where it is written otherwise, or the run has no such round."""
    words = names_in(text)
    for word in words:
        if not word.isdecimal() or int(word) >= total:
            raise UserError(f"--profile={text}: must be rounds of 0 to {total - 1}, such as 2 or 2,3")
    return frozenset(map(int, words))
