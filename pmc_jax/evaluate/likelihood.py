"""How likely a model finds given answers: one compiled scoring pass that all likelihood metrics share."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pmc_jax.data.packing import LABEL_MULTIPLE, LENGTH_MULTIPLE, Batch, Packing, Row, common_prefix, pack, round_up
from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.training import losses
from pmc_jax.training.update import put_batch

POSITIONS_AT_ONCE = 2048  # packed positions scored at a time on each data shard
LENGTH = 192  # tokens that a packed example may have, unless there are longer ones


class TokenScores(NamedTuple):
    """What the model says at each answer token of one row, the end token included: float32 [n] each, n labelled tokens.

    log_probs: log p of the token. hits: 1 where it is the likeliest. means, variances: of log p over the vocabulary,
    under p itself (min-k++).
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
def score_batch(model: Decoder, params: Any, batch: Batch) -> TokenScores:
    """The scores of the labels of a batch of one micro-batch, [S, A] each."""
    return losses.over_labels(
        model, params, token_statistics, losses.label_hidden(model, params, batch, 0), batch.labels_MSA[0]
    )


def packings(rows: list[Row], prefix: int, shards: int) -> list[tuple[Packing, list[int]]]:
    """[(shape, indices of rows for it)]: few shapes, little padding. Two blocks hold LENGTH positions, or a power of
    two for longer rows.
    """
    lengths = [LENGTH if len(row.tokens) <= LENGTH else 2 ** (len(row.tokens) - 1).bit_length() for row in rows]
    found = []
    for length in sorted(set(lengths)):
        members = [i for i, own in enumerate(lengths) if own == length]
        block = max(length // 2, round_up(prefix, LENGTH_MULTIPLE))
        blocks = max(3, POSITIONS_AT_ONCE // block)
        positions = sum(len(rows[i].tokens) - prefix for i in members)
        found.append(
            (Packing(prefix, block, blocks, blocks * block, -(-positions // (blocks * block * shards))), members)
        )
    return found


def micro_batch(batch: Batch, index: int) -> Batch:
    """One micro-batch of a batch on the host, with no more room for labels than the fullest one needs."""
    most = round_up(max(1, np.max(np.sum(batch.group_MSA > 0, axis=-1))), LABEL_MULTIPLE)
    at, labels, group = (x[index : index + 1, :, :most] for x in (batch.at_MSA, batch.labels_MSA, batch.group_MSA))
    rows = (x[index : index + 1] for x in (batch.tokens_MRT, batch.positions_MRT, batch.segments_MRT))
    return Batch(batch.prefix_P, *rows, at, labels, group, batch.counts_2, np.int32(1))


def token_scores(model: Decoder, params: Any, rows: list[Row], on_progress: Any = None) -> list[TokenScores]:
    """The scores of every row's answer tokens, in the rows' order; a row without answer tokens has arrays of length 0.

    on_progress: called with the number of rows scored.
    """
    found = [TokenScores(*(np.zeros(0, np.float32) for _ in TokenScores._fields)) for _ in rows]
    if not rows:
        return found
    mesh = meshes.mesh_of(params)
    shards, done = mesh.shape["data"], 0
    for packing, members in packings(rows, common_prefix(rows), shards):
        # A label's group says which row it belongs to; labels of a row stand side by side, in order.
        whole = pack([rows[i]._replace(group=number) for number, i in enumerate(members, 1)], packing, shards)
        for batch in (micro_batch(whole, index) for index in range(int(whole.used))):
            scores = meshes.gather(score_batch(model, params, put_batch(batch, mesh)))
            for number in set(np.unique(batch.group_MSA)) - {0}:
                found[members[number - 1]] = TokenScores(*(x[batch.group_MSA[0] == number] for x in scores))
                done += 1
            if on_progress:
                on_progress(done)
    return found
