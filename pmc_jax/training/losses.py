"""The training objective: collapse + retain_weight * retain, over packed rows. Pure functions of parameters and a
batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from pmc_jax.data.packing import Batch
from pmc_jax.models import Decoder, Stream
from pmc_jax.models.layers import row_before

LOGITS_AT_ONCE = 2**24  # float32 logits alive at a time in the loss: 64 MiB; beyond it labels are worked off in chunks


def packed_mask(segments_RT: jax.Array, stream: Stream) -> jax.Array:
    """[R, T, prefix + 2T]: a position looks at the shared prefix (segment 1) and, up to itself, at its own segment here
    and in the block before.
    """
    R, T = segments_RT.shape
    before_RT = row_before(segments_RT.reshape(stream.groups, -1, T)).reshape(R, T)
    query, key = segments_RT[:, :, None], jnp.concatenate([before_RT, segments_RT], axis=1)[:, None, :]
    near_RTS = jnp.tril(jnp.ones((T, 2 * T), bool), T) & (key == query) & (key > 0)
    return jnp.concatenate([jnp.broadcast_to(query > 1, (R, T, stream.prefix)), near_RTS], axis=-1)


def label_hidden(model: Decoder, params: Any, batch: Batch, index: Any) -> jax.Array:
    """Final hidden states where the labels of micro-batch number `index` are predicted, [S, A, D]."""
    tokens_RT, positions_RT, segments_RT, at_SA = (
        x[index] for x in (batch.tokens_MRT, batch.positions_MRT, batch.segments_MRT, batch.at_MSA)
    )
    stream = Stream(groups=at_SA.shape[0], prefix=batch.prefix_P.shape[0])
    hidden_RTD, _ = model.apply(
        {"params": params}, tokens_RT, positions_RT, packed_mask(segments_RT, stream), where=stream
    )
    return jnp.take_along_axis(hidden_RTD.reshape(stream.groups, -1, hidden_RTD.shape[-1]), at_SA[:, :, None], axis=1)


def over_shard(model: Decoder, params: Any, f: Callable, hidden_AD: jax.Array, labels_A: jax.Array) -> Any:
    """f(logits_CV, labels_C) of one shard's labels. Chunked with recomputation: for a large vocabulary, A x V logits
    never exist at once.
    """

    def of_chunk(hidden_CD, labels_C):
        return f(model.apply({"params": params}, hidden_CD, method="unembed"), labels_C)

    A, V = labels_A.shape[0], model.config.vocab_size
    chunk = max(1, LOGITS_AT_ONCE // V)
    if A <= chunk:
        return of_chunk(hidden_AD, labels_A)
    chunks = -(-A // chunk)
    filled = chunks * chunk - A
    hidden_NCD = jnp.pad(hidden_AD, ((0, filled), (0, 0))).reshape(chunks, chunk, -1)
    labels_NC = jnp.pad(labels_A, (0, filled)).reshape(chunks, chunk)
    found = jax.lax.map(jax.checkpoint(lambda x: of_chunk(*x)), (hidden_NCD, labels_NC))
    return jax.tree.map(lambda x: x.reshape(-1)[:A], found)


def over_labels(model: Decoder, params: Any, f: Callable, hidden_SAD: jax.Array, labels_SA: jax.Array) -> Any:
    """f(logits_CV, labels_C) of all labels, [S, A] each, shard by shard.

    Where the model's activations are laid out over a mesh, so is this: the head is gathered once and its gradient
    summed over the shards once, in place of every shard's logits, or the whole gradient, going round in each chunk.
    """
    head = {
        name: x for name, x in params.items() if not isinstance(x, dict)
    }  # embedding, head and its bias: all that `unembed` reads

    def of_shards(head, hidden_SAD, labels_SA):
        of_shard = functools.partial(over_shard, model, head, f)
        if labels_SA.shape[0] == 1:
            return jax.tree.map(lambda x: x[None], of_shard(hidden_SAD[0], labels_SA[0]))
        return jax.vmap(of_shard)(hidden_SAD, labels_SA)

    if model.activations is None:
        return of_shards(head, hidden_SAD, labels_SA)
    here, rows = PartitionSpec(), PartitionSpec("data")
    mesh = model.activations.mesh
    return jax.shard_map(of_shards, mesh=mesh, in_specs=(here, rows, rows), out_specs=rows, axis_names={"data"})(
        head, hidden_SAD, labels_SA
    )


def cross_entropy(logits_CV: jax.Array, labels_C: jax.Array) -> jax.Array:
    """-log p of each label, float32 [C]."""
    return jax.nn.logsumexp(logits_CV, axis=-1) - jnp.take_along_axis(logits_CV, labels_C[:, None], axis=1)[:, 0]


def batch_losses(model: Decoder, params: Any, batch: Batch, index: Any) -> jax.Array:
    """-log p of every label of micro-batch number `index`, float32 [S, A]; only label positions are unembedded."""
    return over_labels(model, params, cross_entropy, label_hidden(model, params, batch, index), batch.labels_MSA[index])


def group_losses(losses_SA: jax.Array, group_SA: jax.Array, counts_2: jax.Array) -> jax.Array:
    """[forget, retain]: each the mean of -log p over that group's labels in the whole global batch (this micro-batch's
    share of it).
    """
    return jnp.stack([jnp.sum(jnp.where(group_SA == g, losses_SA, 0.0)) for g in (1, 2)]) / counts_2


def collapse_loss(groups_2: jax.Array, retain_weight: float) -> jax.Array:
    """CE(stored answer | forget question) + retain_weight * CE(retain answer | retain question); pmc.md step 6."""
    return groups_2[0] + retain_weight * groups_2[1]
