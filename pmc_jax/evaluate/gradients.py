"""How strongly single answers pull at a model: the norm of each row's gradient, for the gradient-norm attack."""

import functools
from typing import Any

import jax
import numpy as np

from pmc_jax.data.packing import FORGET, Batch, Packing, Row, pack
from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.training.forward import compute_terms
from pmc_jax.training.objectives import mean_nll
from pmc_jax.training.optimizer import global_norm
from pmc_jax.training.update import put_batch

SHORTEST = 128  # positions that a row is padded to, at least


@functools.partial(jax.jit, static_argnames="model")
def gradient_norm(model: Decoder, params: Any, batch: Batch) -> jax.Array:
    """Norm over all parameters of the gradient of one example's mean loss."""
    return global_norm(jax.grad(lambda params: mean_nll(compute_terms(model, params, batch, 0), FORGET))(params))


def gradient_norms(model: Decoder, params: Any, rows: list[Row], on_progress: Any = None) -> np.ndarray:
    """The norm over all parameters of the gradient of every row's mean loss.

    One row at a time: there is one gradient in memory, and on a CPU several at once take longer (docs/decisions.md).

    Args:
        model: the module.
        params: its parameters.
        rows: N rows; each is padded to a power of two.
        on_progress: called with the number of rows done.

    Returns:
        float64 [N].
    """
    mesh, norms = meshes.mesh_of(params), []
    for row in rows:
        length = max(SHORTEST, 2 ** (len(row.tokens) - 1).bit_length())
        packing = Packing(0, length // 2, 2, length, examples=1)
        batch = pack([row._replace(group=FORGET)], packing, mesh.shape["data"])
        norms.append(float(gradient_norm(model, params, put_batch(batch, mesh))))
        if on_progress:
            on_progress(len(norms))
    return np.array(norms, np.float64)
