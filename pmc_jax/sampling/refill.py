"""The host's part of decoding in lanes: it brings questions into free pages, takes answers off, and tells which samples
need not go on.

It looks at a chunk while the devices are at the next one. What it reads of a chunk is one array of the rows that lie on
its own devices, and for every page how many samples are open, which all hosts see alike: they take the same decisions.
Each host scores its own rows, and hands over its own slice of what is lost.
"""

import gc
import itertools
import json
from collections.abc import Iterator

import jax
import numpy as np

from pmc_jax.data.packing import round_up
from pmc_jax.distributed import meshes, multihost
from pmc_jax.sampling.decode import CHUNK
from pmc_jax.sampling.lanes import Written, decode_lanes
from pmc_jax.sampling.ledger import Begun, Chunk, Devices, LaneCall, Ledger
from pmc_jax.sampling.pages import Seats, empty_lanes, fill_pages, shrink
from pmc_jax.sampling.prefill import PrefillPlan
from pmc_jax.sampling.uniforms import row_uniforms

READINGS = 4  # before a chunk: two pages of each lane, so that the first look is not longer than others


class LaneDevices:
    """The devices of a call's parameters. Programs are dispatched, not waited for.

    Args:
        call: the call.
    """

    def __init__(self, call: LaneCall):
        self.call, self.state = call, None
        self.mesh = call.drawing.sharding.mesh
        self.rows = meshes.row_sharding(self.mesh)

    def read(self, questions_Q: np.ndarray, seats: Seats) -> jax.Array:
        """See `Devices`."""
        call = self.call
        prompts = call.prompts.take(np.maximum(questions_Q, 0))
        uniform_QnL2 = draw_numbers(call, questions_Q, meshes.own_shards(self.mesh))
        questions = meshes.put((prompts, seats, uniform_QnL2), self.rows)
        if self.state is None:
            shapes = questions[0], questions[2]
            self.state = empty_lanes(call.model, call.params, *shapes, plan=call.plan, drawing=call.drawing)
        plan = PrefillPlan(call.sampling.num_samples, 0, call.plan.shards, 1, call.drawing.sharding)
        inputs = call.model, call.params, self.state, questions
        self.state, begun_Qn2 = fill_pages(*inputs, drawing=call.drawing, plan=plan)
        return begun_Qn2

    def decode(self, lost_GX: np.ndarray) -> Written:
        """See `Devices`."""
        call, lost = self.call, meshes.put(lost_GX, self.rows)
        inputs = call.model, call.params, self.state, lost
        self.state, written = decode_lanes(*inputs, drawing=call.drawing, steps=call.kind.look_steps)
        return written

    def shrink(self) -> jax.Array:
        """See `Devices`."""
        self.state, origin_E = shrink(self.state, self.call.plan.small, self.call.drawing.sharding)
        return origin_E

    def own(self, x: jax.Array) -> list[tuple[int, np.ndarray]]:
        """See `Devices`."""
        return meshes.own_rows(x)

    def everywhere(self, x: jax.Array) -> np.ndarray:
        """See `Devices`."""
        return meshes.gather(x)


def draw_numbers(call: LaneCall, questions_Q: np.ndarray, shards: list[int]) -> np.ndarray:
    """The random numbers of all samples of questions that go to some of the shards, float32 [Q, n, L, 2]; zeros for the
    others.
    """
    s, reads = call.sampling, call.plan.reads
    uniform_QnL2 = np.zeros((len(questions_Q), s.num_samples, round_up(s.max_new_tokens, CHUNK), 2), np.float32)
    mine_Q = np.isin(np.arange(len(questions_Q)) // reads, shards) & (questions_Q >= 0)
    if mine_Q.any():
        keys_Q = call.prompts.keys_Q[questions_Q[mine_Q]]
        numbers = row_uniforms(keys_Q, s.seed, call.round_index, s.num_samples, s.max_new_tokens)
        uniform_QnL2[mine_Q] = numbers.reshape(len(keys_Q), *uniform_QnL2.shape[1:])
    return uniform_QnL2


def draw_in_lanes(ledger: Ledger, devices: Devices) -> Iterator[Chunk]:
    """Draw all samples of a call into its ledger. Yields each chunk when it has been looked at."""
    pending = None
    gc.freeze()  # or a collection goes through all that is there, JAX too, in the middle of a look
    try:
        for number in itertools.count():
            begun = []
            while len(begun) < READINGS and (seats := ledger.assign(number)):
                begun.append(Begun(seats[0], devices.read(*seats)))
            chunk = Chunk(number, devices.decode(ledger.take_lost()), ledger.row_GX.copy(), begun)
            pending, chunk = (chunk, pending) if ledger.call.kind.decode_ahead else (None, chunk)
            if chunk is None:
                continue
            ledger.look(chunk, devices)
            yield chunk
            if ledger.finished:
                return
            if ledger.fits_small:
                ledger.move(devices.own(devices.shrink()), number + 1)
    finally:
        gc.unfreeze()


def sample_in_lanes(call: LaneCall) -> Iterator[list[list[list[int]]]]:
    """Sample answers to every prompt.

    Yields:
        [question][sample] -> token ids, of the next questions, as `engine.sample_batches`.
    """
    ledger, given = Ledger(call), 0
    for _ in draw_in_lanes(ledger, LaneDevices(call)):
        if jax.process_count() == 1:
            yield (complete := complete_answers(ledger.answers, given, call))
            given += len(complete)
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
