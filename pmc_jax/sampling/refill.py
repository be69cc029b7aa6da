"""The host's part of decoding in lanes: it brings questions into free pages, takes answers off, and tells which samples
need not go on.

It looks at a chunk while the devices are at the next one. What it reads of a chunk is one array of the rows that lie on
its own devices, and for every page how many samples are open, which all hosts see alike: they take the same decisions.
Each host scores its own rows, and hands over its own slice of what is lost.
"""

import itertools
import json
from collections.abc import Iterator

import jax
import numpy as np

from pmc_jax.data.packing import round_up
from pmc_jax.distributed import meshes, multihost
from pmc_jax.sampling.batches import Seen
from pmc_jax.sampling.decode import CHUNK
from pmc_jax.sampling.lanes import LaneState, decode_lanes
from pmc_jax.sampling.ledger import Chunk, LaneCall, Ledger
from pmc_jax.sampling.pages import Seats, empty_lanes, fill_pages, shrink
from pmc_jax.sampling.prefill import PrefillPlan
from pmc_jax.sampling.uniforms import row_uniforms


def sample_in_lanes(call: LaneCall) -> Iterator[list[list[list[int]]]]:
    """Sample answers to every prompt.

    Yields:
        [question][sample] -> token ids, of the next questions, as `engine.sample_batches`.
    """
    ledger, state, pending, given = Ledger(call), None, None, 0
    for number in itertools.count():
        begun = []
        while seats := ledger.assign(number):
            state, read = read_questions(call, state, *seats)
            begun.append((read, seats[0]))
        state, chunk = next_chunk(call, state, ledger, number, begun)
        pending, chunk = (chunk, pending) if call.kind.decode_ahead else (None, chunk)
        if chunk is None:
            continue
        look(ledger, chunk)
        if jax.process_count() == 1:
            yield (complete := complete_answers(ledger.answers, given, call))
            given += len(complete)
        if ledger.finished:
            break
        if ledger.fits_small:
            state, origin_E = shrink(state, call.plan.small, call.drawing.sharding)
            ledger.move(meshes.own_rows(origin_E), number + 1)
    if jax.process_count() > 1:
        shares = multihost.exchange(json.dumps(list(ledger.answers.items())).encode())
        answers = dict(pair for share in shares for pair in json.loads(share))
        yield complete_answers(answers, 0, call)


def complete_answers(answers: dict[int, list[int]], start: int, call: LaneCall) -> list[list[list[int]]]:
    """Those of the next questions of which all samples are there. They are taken out."""
    n, complete = call.sampling.num_samples, []
    for question in range(start, len(call.prompts.keys_Q)):
        rows = range(question * n, (question + 1) * n)
        if not all(row in answers for row in rows):
            break
        complete.append([answers.pop(row) for row in rows])
    return complete


def read_questions(
    call: LaneCall, state: LaneState | None, questions_Q: np.ndarray, seats: Seats
) -> tuple[LaneState, jax.Array]:
    """Dispatch the reading of questions into their pages. state: None before the first ones."""
    mesh, s, size = call.drawing.sharding.mesh, call.sampling, len(questions_Q)
    prompts = call.prompts.take(np.maximum(questions_Q, 0))
    uniform_QnL2 = np.zeros((size, s.num_samples, round_up(s.max_new_tokens, CHUNK), 2), np.float32)
    for shard in meshes.own_shards(mesh):
        own = slice(shard * call.plan.reads, (shard + 1) * call.plan.reads)
        alive = np.flatnonzero(questions_Q[own] >= 0) + own.start
        if len(alive):
            numbers = row_uniforms(prompts.keys_Q[alive], s.seed, call.round_index, s.num_samples, s.max_new_tokens)
            uniform_QnL2[alive] = numbers.reshape(len(alive), s.num_samples, -1, 2)
    questions = meshes.put((prompts, seats, uniform_QnL2), meshes.row_sharding(mesh))
    static = dict(drawing=call.drawing)
    if state is None:
        state = empty_lanes(call.model, call.params, questions[0], questions[2], plan=call.plan, **static)
    plan = PrefillPlan(s.num_samples, 0, call.plan.shards, 1, call.drawing.sharding)
    return fill_pages(call.model, call.params, state, questions, plan=plan, **static)


def next_chunk(call: LaneCall, state: LaneState, ledger: Ledger, number: int, begun: list) -> tuple[LaneState, Chunk]:
    """Dispatch a chunk."""
    lost_GX = meshes.put(ledger.lost_GX, meshes.row_sharding(call.drawing.sharding.mesh))
    ledger.lost_GX = np.zeros_like(ledger.lost_GX)
    state, written = decode_lanes(
        call.model, call.params, state, lost_GX, drawing=call.drawing, steps=call.kind.look_steps
    )
    return state, Chunk(number, written, ledger.row_GX.copy(), begun)


def look(ledger: Ledger, chunk: Chunk) -> None:
    """Read what a chunk wrote, and decide."""
    seen: dict[int, Seen] = {}
    for begun_Qn2, questions_Q in chunk.begun:
        for first, own in meshes.own_rows(begun_Qn2):
            seen |= ledger.begin(questions_Q, own, first)
    for first, own in meshes.own_rows(chunk.written.tokens_BT2):
        seen |= ledger.go_on(chunk, own, first)
    ledger.note_open(chunk, meshes.gather(chunk.written.open_GP))
    ledger.close(seen)
