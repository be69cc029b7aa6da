"""How strongly single answers pull at a model: the norm of each row's gradient, for the gradient-norm attack."""

import functools
from typing import Any

import jax
import numpy as np
import optax

from pmc_jax import losses, parallel
from pmc_jax.evaluate.likelihood import SHORTEST
from pmc_jax.models import Decoder
from pmc_jax.packing import Batch, Packing, Row, pack

POSITIONS_AT_ONCE = 1024  # of rows that go at once; more is no quicker on two cores
GRADIENT_BYTES = 2**30  # what the gradients of the rows at once may take; one row at a time where a single one takes more


@functools.partial(jax.jit, static_argnames="model")
def norms_of(model: Decoder, params: Any, batches: Batch) -> jax.Array:
    """float32 [N]: for each of N batches of one example, the norm over all parameters of the gradient of its mean loss."""

    def norm(batch: Batch) -> jax.Array:
        def mean_loss(params):
            values_SA = losses.batch_losses(model, params, batch, 0)
            return losses.group_losses(values_SA, batch.group_MSA[0], batch.counts_2)[0]

        return optax.global_norm(jax.grad(mean_loss)(params))

    return jax.vmap(norm)(batches)


def put_batches(batches: list[Batch], mesh: Any) -> Batch:
    """Batches of one shape -> one Batch of global arrays with a leading axis N; rows and shards of each over `data`."""
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, "data"))
    everywhere = parallel.replicated(mesh)
    return Batch(*(parallel.put(np.stack(x), everywhere if x[0].ndim < 2 else by_rows) for x in zip(*batches)))


def gradient_norms(model: Decoder, params: Any, rows: list[Row]) -> np.ndarray:
    """The norm over all parameters of the gradient of every row's mean loss, float64 [N].

    Rows are padded to powers of two and go several at once, as many as their gradients leave room for.
    """
    mesh, found = parallel.mesh_of(params), np.zeros(len(rows))
    room = GRADIENT_BYTES // sum(x.nbytes for x in jax.tree.leaves(params))
    lengths = np.array([max(SHORTEST, 2 ** (len(row.tokens) - 1).bit_length()) for row in rows], int)
    for length in np.unique(lengths):
        members, at_once = np.flatnonzero(lengths == length), max(1, min(room, POSITIONS_AT_ONCE // length))
        for start in range(0, len(members), at_once):
            some = members[start : start + at_once]
            batches = [pack([rows[i]._replace(group=1)], Packing(0, length, 1, length), mesh.shape["data"]) for i in some]
            filled = batches + batches[:1] * (at_once - len(some))  # one compiled shape
            found[some] = np.asarray(norms_of(model, params, put_batches(filled, mesh)))[: len(some)]
    return found
