"""What one forward pass over packed rows offers to an objective. Pure functions of parameters and a batch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from pmc_jax.data.packing import NO_LABEL, Batch
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Stream
from pmc_jax.models.attention import row_before
from pmc_jax.training.statistics import STATISTICS, Hyper, LabelLogits

LabelFunction = Callable[..., Any]  # (logits_CV float32, labels_C) -> arrays [C]; of two models (.., .., start_CV)


class Terms(NamedTuple):
    """What the forward pass of one micro-batch offers: S data shards, A labels and E examples a shard, G groups.

    Attributes:
        log_probs_SA: float32, log p of each label; of no meaning where there is no label.
        group_SA: int32, NO_LABEL or one of GROUPS.
        example_SA: int32, the number of each label's example within its shard.
        nll_SE: float32, each example's sum of -log p; 0 where there is no example.
        labels_SE: float32, each example's number of labels.
        group_SE: int32, each example's group; NO_LABEL where there is no example.
        reference_SE: float32, `nll_SE` under the frozen start model, where the objective asks for it; otherwise 0.
        weight_SE: float32, each example's weight; 0 where there is no example.
        label_counts_G: float32, labels of each of GROUPS in the whole global batch, at least 1.
        example_counts_G: float32, the same of examples.
        statistics: the STATISTICS that the objective asks for, by name, float32 [S, A] each.
        hidden_SAD: one layer's output at each label's own token, where the objective asks for it; otherwise None.
        start_hidden_SAD: the same of the start model, where the objective compares with it; otherwise None.
        pair_SE: int32, the number within its shard of the example that each one is paired with; its own without one.
    """

    log_probs_SA: jax.Array
    group_SA: jax.Array
    example_SA: jax.Array
    nll_SE: jax.Array
    labels_SE: jax.Array
    group_SE: jax.Array
    reference_SE: jax.Array
    weight_SE: jax.Array
    label_counts_G: jax.Array
    example_counts_G: jax.Array
    statistics: dict[str, jax.Array]
    hidden_SAD: jax.Array | None
    start_hidden_SAD: jax.Array | None
    pair_SE: jax.Array


NO_HYPER: Hyper = {}


class Wanted(NamedTuple):
    """What is wanted of a forward pass beside log-probabilities.

    Attributes:
        statistics: names in STATISTICS; computed from the same logits.
        hyper: hyperparameters that the statistics read.
        hidden_layer: the layer whose output is wanted, counted from 0.
        start: parameters of the start model, for what compares with it: a second forward pass, without a gradient.
    """

    statistics: tuple[str, ...] = ()
    hyper: Hyper = NO_HYPER
    hidden_layer: int | None = None
    start: Any = None


NOTHING_MORE = Wanted()


def packed_mask(segments_RT: jax.Array, stream: Stream) -> jax.Array:
    """[R, T, prefix + 2T]: a position looks at the shared prefix (segment 1) and, up to itself, at its own segment here
    and in the block before.
    """
    R, T = segments_RT.shape
    before_RT = row_before(segments_RT.reshape(stream.groups, -1, T)).reshape(R, T)
    query, key = segments_RT[:, :, None], jnp.concatenate([before_RT, segments_RT], axis=1)[:, None, :]
    near_RTS = jnp.tril(jnp.ones((1, T, 2 * T), bool), T) & (key == query) & (key > 0)
    return jnp.concatenate([jnp.broadcast_to(query > 1, (R, T, stream.prefix)), near_RTS], axis=-1)


def label_hidden(
    model: Decoder, params: Any, batch: Batch, index: Any, layer: int | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Hidden states of the labels of micro-batch number `index`, [S, A, D] each.

    Returns:
        Final hidden states where each label is predicted, and the output of `layer` at each label's own token (None
        where no layer is given).
    """
    tokens_RT, positions_RT, segments_RT, index_SA = (
        x[index] for x in (batch.tokens_MRT, batch.positions_MRT, batch.segments_MRT, batch.index_MSA)
    )
    stream = Stream(groups=index_SA.shape[0], prefix=batch.prefix_P.shape[0])
    mask_RTS = packed_mask(segments_RT, stream)
    final_RTD, _, *layer_RTD = model.apply(
        {"params": params}, tokens_RT, positions_RT, mask_RTS, stream=stream, hidden_layer=layer
    )

    def pick(hidden_RTD, index_SA):
        hidden_SND = hidden_RTD.reshape(stream.groups, -1, hidden_RTD.shape[-1])
        return jnp.take_along_axis(hidden_SND, index_SA[:, :, None], axis=1)

    return pick(final_RTD, index_SA), pick(layer_RTD[0], index_SA + 1) if layer_RTD else None


def map_shard(
    model: Decoder, heads: tuple[Any, ...], f: LabelFunction, hidden: tuple[jax.Array, ...], labels_A: jax.Array
) -> Any:
    """f(logits_CV, labels_C) of one shard's labels; with the heads and hidden states of several models,
    f(logits_CV, labels_C, other logits_CV).

    Chunked with recomputation: for a large vocabulary, A x V logits never exist at once.
    """

    def map_chunk(hidden, labels_C):
        logits, *others = (model.apply({"params": head}, x, method="unembed") for head, x in zip(heads, hidden))
        return f(logits, labels_C, *others)

    A, V = labels_A.shape[0], model.config.vocab_size
    chunk = max(1, model.logits_at_once // V)
    if A <= chunk:
        return map_chunk(hidden, labels_A)
    chunks = -(-A // chunk)
    filled = chunks * chunk - A
    hidden_NCD = tuple(jnp.pad(x, ((0, filled), (0, 0))).reshape(chunks, chunk, -1) for x in hidden)
    labels_NC = jnp.pad(labels_A, (0, filled)).reshape(chunks, chunk)
    values = jax.lax.map(jax.checkpoint(lambda x: map_chunk(*x)), (hidden_NCD, labels_NC))
    return jax.tree.map(lambda x: x.reshape(-1)[:A], values)


def map_labels(
    model: Decoder, params: Any, f: LabelFunction, hidden_SAD: jax.Array, labels_SA: jax.Array, *start: Any
) -> Any:
    """f(logits_CV, labels_C) of all labels, [S, A] each, shard by shard.

    Where the model's activations are laid out over a mesh, so is this. The head is gathered once and its gradient is
    summed over the shards once. Otherwise each chunk would send every shard's logits, or the whole gradient.

    start: parameters and final hidden states of the start model, where f takes its logits too.
    """

    def head(params):  # embedding, head and its bias: all that `unembed` reads
        return {name: x for name, x in params.items() if not isinstance(x, dict)}

    heads, hidden = tuple(map(head, (params, *start[:1]))), (hidden_SAD, *start[1:])

    def map_shards(heads, hidden, labels_SA):
        map_one = functools.partial(map_shard, model, heads, f)
        if labels_SA.shape[0] == 1:
            return jax.tree.map(lambda x: x[None], map_one(tuple(x[0] for x in hidden), labels_SA[0]))
        return jax.vmap(map_one)(hidden, labels_SA)

    if model.activations is None:
        return map_shards(heads, hidden, labels_SA)

    def map_own(heads, hidden, labels_SA):
        return map_shards(jax.lax.pcast(heads, ("data",), to="varying"), hidden, labels_SA)

    everywhere, rows = PartitionSpec(), PartitionSpec("data")
    return jax.shard_map(
        map_own,
        mesh=model.activations.mesh,
        in_specs=(everywhere, rows, rows),
        out_specs=rows,
        axis_names={"data"},
    )(heads, hidden, labels_SA)


def label_log_probs(logits_CV: jax.Array, labels_C: jax.Array) -> jax.Array:
    """log p of each label, float32 [C].

    The label's logit is picked as a masked sum: the gradient of an index would be written into an array of its own.
    """
    is_label_CV = jax.nn.one_hot(labels_C, logits_CV.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(is_label_CV, logits_CV, 0.0), axis=-1) - jax.nn.logsumexp(logits_CV, axis=-1)


def sum_by_example(values_SA: jax.Array, group_SA: jax.Array, example_SA: jax.Array, examples: int) -> jax.Array:
    """Each example's sum of its labels' values, [S, E]. As a masked sum: its order is the same on every device."""
    own_SEA = (example_SA[:, None] == jnp.arange(examples)[None, :, None]) & (group_SA[:, None] != NO_LABEL)
    return jnp.sum(jnp.where(own_SEA, values_SA[:, None], 0.0), axis=-1)


def compute_terms(model: Decoder, params: Any, batch: Batch, index: Any, wanted: Wanted = NOTHING_MORE) -> Terms:
    """The terms of micro-batch number `index`.

    Args:
        model: a decoder; with `activations` set, labels are laid out like them.
        params: its parameters, in the dtype of the forward pass.
        batch: packed rows.
        index: which micro-batch, an int or an int32 scalar.
        wanted: what the objective wants besides.

    Raises:
        UserError: the model has no such layer.
    """
    layer = wanted.hidden_layer
    if layer is not None and not 0 <= layer < model.config.num_layers:
        last = model.config.num_layers - 1
        raise UserError(f"the objective asks for hidden_layer={layer}; the model has layers 0 to {last}")
    hidden_SAD, layer_SAD = label_hidden(model, params, batch, index, layer)
    start, start_layer_SAD = (), None
    if wanted.start is not None:
        start_SAD, start_layer_SAD = jax.lax.stop_gradient(label_hidden(model, wanted.start, batch, index, layer))
        start = jax.lax.stop_gradient(wanted.start), start_SAD

    def label_values(logits_CV, labels_C, start_CV=None):
        seen = LabelLogits(logits_CV, labels_C, start_CV)
        named = {name: STATISTICS[name].function(seen, wanted.hyper) for name in wanted.statistics}
        return label_log_probs(logits_CV, labels_C), named

    log_probs_SA, named_SA = map_labels(model, params, label_values, hidden_SAD, batch.labels_MSA[index], *start)
    group_SA, example_SA, group_SE = batch.group_MSA[index], batch.example_MSA[index], batch.group_MSE[index]
    sums = functools.partial(sum_by_example, group_SA=group_SA, example_SA=example_SA, examples=group_SE.shape[1])
    return Terms(
        log_probs_SA=log_probs_SA,
        group_SA=group_SA,
        example_SA=example_SA,
        nll_SE=sums(-log_probs_SA),
        labels_SE=sums(jnp.ones_like(log_probs_SA)),
        group_SE=group_SE,
        reference_SE=batch.reference_MSE[index],
        weight_SE=batch.weight_MSE[index],
        label_counts_G=batch.label_counts_G,
        example_counts_G=batch.example_counts_G,
        statistics=named_SA,
        hidden_SAD=layer_SAD,
        start_hidden_SAD=start_layer_SAD,
        pair_SE=batch.pair_MSE[index],
    )
