"""The sampler's engine: prompts -> prefill -> chunks, and between chunks retire and compact -> answers.

On accelerators rows are refilled in place of that (lanes.py on the devices, refill.py and ledger.py on the host):
`sample_batches` decides. Otherwise:

1. The questions are cut into batches (buckets.py).
2. Each question of a batch is prefilled once. Its n rows share its prompt cache and draw along its draft (prefill.py).
3. All rows decode together in jitted chunks (decode.py). An accelerator decodes the next chunk while the host looks at
   the last one.
4. Between chunks the host retires rows that are done or pruned, and compacts the others: few rows go on in a smaller
   batch with more slots for their tokens (batches.py).

A draw is keyed by (seed, round, question, sample, position). It does not depend on batching, compaction, the number of
devices or resume.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import DeviceKind, device_kind
from pmc_jax.models import Decoder
from pmc_jax.sampling.batches import DecodeBatch, Origins, Pruner, Snapshot, compact, retire, snapshot
from pmc_jax.sampling.buckets import BatchPlan, Bucket, LanePlan, batch_buckets, plan_batches, plan_lanes
from pmc_jax.sampling.decode import CHUNK, decode_chunk
from pmc_jax.sampling.lanes import Drawing
from pmc_jax.sampling.ledger import LaneCall
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.sampling.prompts import Prompts
from pmc_jax.sampling.refill import sample_in_lanes
from pmc_jax.sampling.uniforms import row_uniforms


class EngineConfig(NamedTuple):
    """How much is decoded at once. It changes the speed, never an answer.

    Attributes:
        max_rows: answers decoded at once on each data shard.
        capacity: the most questions that will come in one call; None = those of each call. Batch sizes are taken from
            it, so that later calls with fewer questions compile nothing new.
    """

    max_rows: int = 256
    capacity: int | None = None


class Call(NamedTuple):
    """What stays the same during one call of `sample_batches`: its arguments, and the sizes that follow from them."""

    model: Decoder
    params: Any
    sampling: SamplingParams
    end_tokens: tuple[int, ...]
    prune: Pruner | None
    plan: BatchPlan
    buckets: list[Bucket]


def sample_batches(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    *,
    sampling: SamplingParams,
    end_tokens: tuple[int, ...],
    engine: EngineConfig,
    round_index: int = 0,
    prune: Pruner | None = None,
) -> Iterator[list[list[list[int]]]]:
    """Sample answers to every prompt, batch by batch.

    Args:
        model: any family's.
        params: laid out for decoding (`sampler.decode_params`).
        prompts: of Q questions, with drafts or without.
        sampling: what to sample.
        end_tokens: ids that end an answer.
        engine: how much at once.
        round_index: part of the draws' key.
        prune: asked between chunks which rows need not go on. Those keep what they have.

    Yields:
        [question][sample] -> token ids, of the next questions. The end token is included where one was drawn.
    """
    mesh, (Q, draft_slots) = meshes.mesh_of(params), prompts.drafts_QA.shape
    kind, shards, width = device_kind(mesh), mesh.shape["data"], prompts.tokens_QP.shape[1] + draft_slots - 1
    if not Q:
        return
    plan = choose_plan(model, engine.capacity or Q, width, sampling, engine.max_rows, shards, kind)
    if isinstance(plan, LanePlan):
        drawing = Drawing(sampling.strategy, end_tokens, sampling.max_new_tokens, meshes.cache_sharding(mesh))
        yield from sample_in_lanes(LaneCall(model, params, prompts, sampling, drawing, plan, kind, round_index, prune))
        return
    samples = sampling.num_samples
    buckets = batch_buckets(plan.rows, shards, sampling.max_new_tokens, kind, samples, drafted=draft_slots > 1)
    call = Call(model, params, sampling, end_tokens, prune, plan, buckets)
    for start in range(0, Q, plan.questions):
        part = prompts.take(slice(start, start + plan.questions))
        rows = range(start * samples, (start + len(part.keys_Q)) * samples)
        batch, origins = prefill_batch(call, part, rows, round_index)
        answers = decode_batch(call, batch, origins)
        yield [[answers[row] for row in rows[i : i + samples]] for i in range(0, len(rows), samples)]


def choose_plan(
    model: Decoder,
    questions: int,
    width: int,
    sampling: SamplingParams,
    max_rows: int,
    shards: int,
    kind: DeviceKind,
) -> LanePlan | BatchPlan:
    """The sizes of a call: lanes, or batches that shrink where devices or windows want them.

    Args:
        model: any.
        questions: in all.
        width: slots of a prompt and its draft.
        sampling: what is sampled.
        max_rows: rows of each shard, at most.
        shards: data shards.
        kind: what the devices want.
    """
    if kind.refill:
        lanes = plan_lanes(questions, width, sampling, max_rows, shards, kind)
        if sees_all(model, lanes.pages * width + lanes.ring):
            return lanes
    return plan_batches(questions, width, sampling.num_samples, max_rows, shards, kind)


def sees_all(model: Decoder, slots: int) -> bool:
    """Whether no layer's window is shorter than so many slots. In lanes slots do not come in the order of positions, by
    which a window would be cut.
    """
    return all(layer.window is None or layer.window >= slots for layer in model.config.layers)


def prefill_batch(call: Call, prompts: Prompts, rows: range, round_index: int) -> tuple[DecodeBatch, Origins]:
    """Read the prompts of one batch, and draw its rows along their drafts.

    Args:
        call: the whole call.
        prompts: of the batch's questions.
        rows: which rows of the call theirs are.
        round_index: part of the draws' key.
    """
    mesh, sampling, size = meshes.mesh_of(call.params), call.sampling, call.plan.size
    sharding, count = meshes.row_sharding(mesh), len(prompts.keys_Q)
    real_Q = np.arange(size) < count
    padded = prompts.take(np.where(real_Q, np.arange(size), 0))  # filled up with copies of the first question
    uniform_BL2 = row_uniforms(padded.keys_Q, sampling.seed, round_index, sampling.num_samples, sampling.max_new_tokens)
    uniform_BA2 = uniform_BL2[:, : padded.drafts_QA.shape[1]]
    state, accepted_B = prefill(
        call.model,
        call.params,
        *meshes.put((padded, real_Q, uniform_BA2), sharding),
        strategy=sampling.strategy,
        end_tokens=call.end_tokens,
        plan=PrefillPlan(
            sampling.num_samples,
            call.buckets[0].slots,
            mesh.shape["data"],
            call.plan.parts,
            meshes.cache_sharding(mesh),
        ),
    )
    accepted = [
        padded.drafts_QA[row // sampling.num_samples, :length].tolist()
        for row, length in enumerate(meshes.gather(accepted_B))
    ]
    origin_B = np.arange(call.plan.rows)
    rows_B = np.where(origin_B < len(rows), rows.start + origin_B, -1)
    return DecodeBatch(state, 1, rows_B, origin_B, call.buckets), Origins(accepted, uniform_BL2)


def decode_batch(call: Call, batch: DecodeBatch, origins: Origins) -> dict[int, list[int]]:
    """Decode chunks until every row is retired, in smaller batches as rows leave. Returns {row: its tokens}.

    With `decode_ahead` the device decodes a chunk while the host looks at what was there before it, so that a row is
    retired a chunk late.
    """
    longest, mesh = call.sampling.max_new_tokens, meshes.mesh_of(call.params)
    sharding, ahead = meshes.row_sharding(mesh), device_kind(mesh).decode_ahead and call.prune is not None
    answers: dict[int, list[int]] = {}

    def retire_and_compact(batch: DecodeBatch, seen_state: Snapshot) -> list[DecodeBatch]:
        batch, retired = retire(batch, seen_state, origins, longest, call.end_tokens, call.prune)
        answers.update(retired)
        return compact(batch, longest, sharding)

    # Many rows end with their draft, or are pruned by then. So the host looks before the first chunk, on any device.
    batches = retire_and_compact(batch, snapshot(batch.state))
    while batches:
        batch = batches.pop()
        before = Snapshot(*map(jnp.copy, snapshot(batch.state))) if ahead else None
        if batch.step < longest:
            batch = next_chunk(call, batch, origins)
        batches += retire_and_compact(batch, before or snapshot(batch.state))
    return answers


def next_chunk(call: Call, batch: DecodeBatch, origins: Origins) -> DecodeBatch:
    """The batch after its next chunk, which ends at a multiple of CHUNK or where its slots end."""
    step = batch.step // CHUNK * CHUNK
    last_step = min(step + CHUNK, batch.state.tokens_BC.shape[1])
    mesh = meshes.mesh_of(call.params)
    uniform_BT2 = meshes.put(origins.uniforms(batch.origin_B, step), meshes.row_sharding(mesh))
    state = decode_chunk(
        call.model,
        call.params,
        batch.state,
        uniform_BT2,
        meshes.put(np.int32(last_step), meshes.replicated_sharding(mesh)),
        strategy=call.sampling.strategy,
        end_tokens=call.end_tokens,
    )
    return batch._replace(state=state, step=last_step)
