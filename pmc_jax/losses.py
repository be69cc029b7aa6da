"""The training objective: collapse + retain_weight * retain, over packed rows. Pure functions of parameters and a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from pmc_jax.models import Decoder, Shared
from pmc_jax.packing import Batch

LOGITS_AT_ONCE = 2**24  # float32 logits alive at a time in the loss: 64 MiB; beyond it labels are worked off in chunks


def packed_mask(segments_RT: jax.Array, prefix: int) -> jax.Array:
    """[R, T, prefix + T]: a position looks at the shared prefix (segment 1) and at its own segment, up to itself."""
    R, T = segments_RT.shape
    query, key = segments_RT[:, :, None], segments_RT[:, None, :]
    own_RTT = jnp.tril(jnp.ones((T, T), bool)) & (key == query) & (key > 0)
    return jnp.concatenate([jnp.broadcast_to(query > 1, (R, T, prefix)), own_RTT], axis=-1)


def label_losses(model: Decoder, params: Any, hidden_AD: jax.Array, labels_A: jax.Array) -> jax.Array:
    """-log p of each label, float32 [A]. Chunked with recomputation, so that A x V logits never exist at once for a large vocabulary."""

    def losses(hidden_CD, labels_C):
        logits_CV = model.apply({"params": params}, hidden_CD, method="unembed")
        picked_C = jnp.take_along_axis(logits_CV, labels_C[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits_CV, axis=-1) - picked_C

    A, V = labels_A.shape[0], model.config.vocab_size
    chunk = max(1, LOGITS_AT_ONCE // V)
    if A <= chunk:
        return losses(hidden_AD, labels_A)
    chunks = -(-A // chunk)
    filled = chunks * chunk - A
    hidden_NCD = jnp.pad(hidden_AD, ((0, filled), (0, 0))).reshape(chunks, chunk, -1)
    labels_NC = jnp.pad(labels_A, (0, filled)).reshape(chunks, chunk)
    return jax.lax.map(jax.checkpoint(lambda x: losses(*x)), (hidden_NCD, labels_NC)).reshape(-1)[:A]


def batch_losses(model: Decoder, params: Any, batch: Batch, index: Any) -> jax.Array:
    """-log p of every label of micro-batch number `index`, float32 [S, A]; only label positions are unembedded."""
    tokens_RT, positions_RT, segments_RT, at_SA, labels_SA = (
        x[index] for x in (batch.tokens_MRT, batch.positions_MRT, batch.segments_MRT, batch.at_MSA, batch.labels_MSA)
    )
    S, prefix = at_SA.shape[0], batch.prefix_P.shape[0]
    shared = Shared(groups=S, slots=prefix) if prefix else None
    hidden_RTD, _ = model.apply({"params": params}, tokens_RT, positions_RT, packed_mask(segments_RT, prefix), where=shared)
    D = hidden_RTD.shape[-1]
    hidden_SAD = jnp.take_along_axis(hidden_RTD.reshape(S, -1, D), at_SA[:, :, None], axis=1)
    if S == 1:
        return label_losses(model, params, hidden_SAD[0], labels_SA[0])[None]
    return jax.vmap(lambda hidden, labels: label_losses(model, params, hidden, labels))(hidden_SAD, labels_SA)


def group_losses(losses_SA: jax.Array, group_SA: jax.Array, counts_2: jax.Array) -> jax.Array:
    """[forget, retain]: each the mean of -log p over that group's labels in the whole global batch (this micro-batch's share of it)."""
    return jnp.stack([jnp.sum(jnp.where(group_SA == g, losses_SA, 0.0)) for g in (1, 2)]) / counts_2


def collapse_loss(groups_2: jax.Array, retain_weight: float) -> jax.Array:
    """CE(stored answer | forget question) + retain_weight * CE(retain answer | retain question); pmc.md step 6."""
    return groups_2[0] + retain_weight * groups_2[1]
