"""How likely a model finds given answers: one compiled scoring pass that all likelihood metrics share."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax import losses, parallel
from pmc_jax.models import Decoder
from pmc_jax.packing import Batch, Packing, Row, common_prefix, pack
from pmc_jax.update import put_batch

POSITIONS_AT_ONCE = 2048  # packed positions scored at a time on each data shard
SHORTEST = 128  # positions of a packed row, at least
FILLED = 0.85  # share of a batch's positions that its rows may take, so that they pack into it


class TokenScores(NamedTuple):
    """What the model says at each answer token of one row, the end token included: float32 [n] each, n labelled tokens.

    log_probs: log p of the token. hits: 1 where it is the likeliest. means, variances: of log p over the vocabulary, under p itself (min-k++).
    """

    log_probs: np.ndarray
    hits: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def token_statistics(logits_CV: jax.Array, labels_C: jax.Array) -> TokenScores:
    """TokenScores of C labels at once, in float32."""
    log_p_CV = jax.nn.log_softmax(logits_CV, axis=-1)
    p_CV = jnp.exp(log_p_CV)
    mean_C = jnp.sum(p_CV * log_p_CV, axis=-1)
    variance_C = jnp.sum(p_CV * jnp.square(log_p_CV), axis=-1) - jnp.square(mean_C)
    picked_C = jnp.take_along_axis(log_p_CV, labels_C[:, None], axis=1)[:, 0]
    return TokenScores(picked_C, (jnp.argmax(logits_CV, axis=-1) == labels_C).astype(jnp.float32), mean_C, variance_C)


@functools.partial(jax.jit, static_argnames="model")
def score_batch(model: Decoder, params: Any, batch: Batch, index: Any) -> TokenScores:
    """The scores of one micro-batch's labels, [S, A] each."""
    return losses.over_labels(model, params, token_statistics, losses.label_hidden(model, params, batch, index), batch.labels_MSA[index])


def packings(rows: list[Row], prefix: int, shards: int) -> Iterator[tuple[Packing, list[int]]]:
    """(shape, indices of rows for it), longest rows first: few shapes, row lengths are powers of two."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
    while order:
        length = max(SHORTEST, 2 ** (len(rows[order[0]].tokens) - 1).bit_length())
        per_shard = max(length, POSITIONS_AT_ONCE)
        sums = np.cumsum([len(rows[i].tokens) - prefix for i in order])
        count = max(1, int(np.searchsorted(sums, FILLED * shards * per_shard)))
        yield Packing(prefix, length, per_shard // length, per_shard), order[:count]
        order = order[count:]


def token_scores(model: Decoder, params: Any, rows: list[Row]) -> list[TokenScores]:
    """The scores of every row's answer tokens, in the rows' order; a row without answer tokens has arrays of length 0."""
    found = [TokenScores(*(np.zeros(0, np.float32) for _ in TokenScores._fields)) for _ in rows]
    if not rows:
        return found
    mesh = parallel.mesh_of(params)
    shards = mesh.shape["data"]
    for packing, members in packings(rows, common_prefix(rows), shards):
        # A label's group says which row it belongs to; labels of a row stand side by side, in order.
        batch = pack([rows[i]._replace(group=number) for number, i in enumerate(members, 1)], packing, shards)
        on_device = put_batch(batch, mesh)
        for index in range(int(batch.used)):
            scores = parallel.gather(score_batch(model, params, on_device, index))
            for number in np.unique(batch.group_MSA[index]):
                if number:
                    found[members[number - 1]] = TokenScores(*(x[batch.group_MSA[index] == number] for x in scores))
    return found
