"""Values at the labels of many rows under fixed parameters: one compiled pass over few shapes of packed batches."""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from pmc_jax.data.packing import (
    LABEL_MULTIPLE,
    LENGTH_MULTIPLE,
    NO_LABEL,
    NO_ROW,
    Batch,
    Packing,
    Row,
    common_prefix,
    pack,
    round_up,
)
from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.training.forward import LabelFunction, label_hidden, label_log_probs, map_labels
from pmc_jax.training.update import cast, put_batch

POSITIONS_AT_ONCE = 2048  # packed positions at a time on each data shard
LENGTH = 192  # tokens that a packed example may have, unless there are longer ones


@functools.partial(jax.jit, static_argnames=("model", "f", "compute_dtype"))
def batch_values(model: Decoder, params: Any, f: LabelFunction, batch: Batch, compute_dtype: str = "") -> Any:
    """f(logits_CV, labels_C) at the labels of a batch of one micro-batch, [S, A] each."""
    params = cast(params, compute_dtype)
    hidden_SAD, _ = label_hidden(model, params, batch, 0)
    return map_labels(model, params, f, hidden_SAD, batch.labels_MSA[0])


def packings(rows: list[Row], prefix: int, shards: int) -> list[tuple[Packing, list[int]]]:
    """[(shape, indices of rows for it)]: few shapes, little padding. Two blocks hold LENGTH positions, or a power of
    two for longer rows.
    """
    lengths = [LENGTH if len(row.tokens) <= LENGTH else 2 ** (len(row.tokens) - 1).bit_length() for row in rows]
    shapes = []
    for length in sorted(set(lengths)):
        members = [i for i, own in enumerate(lengths) if own == length]
        block = max(length // 2, round_up(prefix, LENGTH_MULTIPLE))
        blocks = max(3, POSITIONS_AT_ONCE // block)
        size = blocks * block
        positions = sum(len(rows[i].tokens) - prefix for i in members)
        # An example has a token of its prompt and an answer token of its own, or more.
        shapes.append((Packing(prefix, block, blocks, size, size // 2, -(-positions // (size * shards))), members))
    return shapes


def micro_batches(batch: Batch) -> Iterator[Batch]:
    """Each micro-batch of a batch on the host, with no more room for labels than the fullest shard in it needs."""
    for index in range(int(batch.used)):
        own = batch._asdict() | {n: x[index : index + 1] for n, x in batch._asdict().items() if x.ndim > 1}
        fullest = np.max(np.sum(own["group_MSA"] != NO_LABEL, axis=-1))
        room = round_up(max(1, int(fullest)), LABEL_MULTIPLE)
        own |= {name: x[:, :, :room] for name, x in own.items() if name.endswith("_MSA")}
        yield Batch(**own | {"used": np.int32(1)})


def label_values(
    model: Decoder,
    params: Any,
    rows: list[Row],
    f: LabelFunction,
    compute_dtype: str = "",
    on_progress: Callable[[int], None] | None = None,
) -> list[Any]:
    """f(logits_CV, labels_C) at every row's labels, in the order of rows and labels.

    Args:
        model: the decoder.
        params: its parameters.
        rows: the rows; groups are not looked at.
        f: a pure function of logits and labels that gives a tree of arrays [C]. The pass is compiled once for each f.
        compute_dtype: of the forward pass (empty: the parameters' own).
        on_progress: called with the number of rows done.

    Returns:
        One tree of numpy arrays [n] for each row of n labels; None for a row without labels.
    """
    values: list[Any] = [None] * len(rows)
    if not rows:
        return values
    mesh = meshes.mesh_of(params)
    shards, done = mesh.shape["data"], 0
    for packing, members in packings(rows, common_prefix(rows), shards):
        for batch in micro_batches(pack([rows[i] for i in members], packing, shards)):
            on_host = meshes.gather(batch_values(model, params, f, put_batch(batch, mesh), compute_dtype))
            row_SA = np.take_along_axis(batch.row_MSE[0], batch.example_MSA[0], axis=1)
            row_SA = np.where(batch.group_MSA[0] != NO_LABEL, row_SA, NO_ROW)
            for number in set(np.unique(row_SA)) - {NO_ROW}:
                values[members[number]] = jax.tree.map(operator.itemgetter(row_SA == number), on_host)
                done += 1
            if on_progress:
                on_progress(done)
    return values


def row_nll(model: Decoder, params: Any, rows: list[Row], compute_dtype: str = "") -> np.ndarray:
    """Each row's sum of -log p over its labels, float64 [N]: the reference values of rows under a frozen model."""
    log_probs = label_values(model, params, rows, label_log_probs, compute_dtype)
    return np.array([0.0 if x is None else -np.sum(x, dtype=np.float64) for x in log_probs])


def with_references(model: Decoder, params: Any, rows: list[Row], compute_dtype: str = "") -> list[Row]:
    """The rows with their `row_nll` under these parameters as reference."""
    nll = row_nll(model, params, rows, compute_dtype)
    return [row._replace(reference=float(value)) for row, value in zip(rows, nll)]
