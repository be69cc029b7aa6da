"""What the host knows of a call whose samples are drawn in lanes: which question is in which page, and what has been
drawn.
"""

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from pmc_jax.distributed.device_kind import DeviceKind
from pmc_jax.models import Decoder
from pmc_jax.sampling.batches import Pruner, Seen, cut
from pmc_jax.sampling.buckets import LanePlan
from pmc_jax.sampling.lanes import Drawing, Written
from pmc_jax.sampling.pages import Seats
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prompts import Prompts


class LaneCall(NamedTuple):
    """What stays the same during one call."""

    model: Decoder
    params: Any
    prompts: Prompts
    sampling: SamplingParams
    drawing: Drawing
    plan: LanePlan
    kind: DeviceKind
    round_index: int
    prune: Pruner | None


class Begun(NamedTuple):
    """Questions that were read, and what their samples begin with: int32 [Q, n, 2], see `fill_pages`."""

    questions_Q: np.ndarray
    begun_Qn2: jax.Array


class Chunk(NamedTuple):
    """A chunk that the devices are at, or have done.

    Attributes:
        number: chunks before it.
        written: what it writes.
        row_GX: the row of the call that each sample of the lanes is; -1 = none.
        begun: questions that were read since the chunk before.
    """

    number: int
    written: Written
    row_GX: np.ndarray
    begun: list[Begun]


class Devices(Protocol):
    """What draws the samples. It has the state of the lanes."""

    def read(self, questions_Q: np.ndarray, seats: Seats) -> jax.Array:
        """Read questions into their pages. Returns what `fill_pages` does, [Q, n, 2]."""

    def decode(self, lost_GX: np.ndarray) -> Written:
        """A chunk without some samples."""

    def shrink(self) -> jax.Array:
        """Go on with the smaller batch. Returns which sample each of its lanes has, [E]."""

    def own(self, x: jax.Array) -> list[tuple[int, np.ndarray]]:
        """What this host has of an array, as `meshes.own_rows`."""

    def everywhere(self, x: jax.Array) -> np.ndarray:
        """What all hosts have alike, as `meshes.gather`."""


class Ledger:
    """What the host knows of a call.

    Attributes:
        call: the call.
        ends: its end tokens.
        question_GP: which question is in each page; -1 = the page is free. The same on all hosts.
        since_GP: the first chunk that has it.
        row_GX: see `Chunk`.
        place: {row: its place in row_GX}.
        first_small: the first chunk of the smaller batch, once that goes on.
        lost_GX: samples that need not go on, and whose rows do not know it yet; of this host's rows.
        next: the first question that is not read.
        open_GP: samples of each page that have not ended, as far as is known.
        open: {row: its tokens so far}, of this host's rows.
        answers: {row: its tokens}, of this host's rows that have ended.
    """

    def __init__(self, call: LaneCall):
        plan, n = call.plan, call.sampling.num_samples
        self.call, self.next, self.ends = call, 0, frozenset(call.drawing.end_tokens)
        self.question_GP = np.full((plan.lanes, plan.pages), -1)
        self.since_GP = np.zeros((plan.lanes, plan.pages), int)
        self.row_GX = np.full((plan.lanes, plan.pages * n), -1)
        self.lost_GX = np.zeros(self.row_GX.shape, bool)
        self.place: dict[int, tuple[int, int]] = {}
        self.first_small: int | None = None
        self.open_GP = np.zeros((plan.lanes, plan.pages), int)
        self.open: dict[int, list[int]] = {}
        self.answers: dict[int, list[int]] = {}

    def assign(self, number: int) -> tuple[np.ndarray, Seats] | None:
        """The next questions that are read, and their seats; None where it is better to wait.

        Args:
            number: of the chunk that comes next.
        """
        if self.all_read:
            return None
        plan, Q, n = self.call.plan, len(self.call.prompts.keys_Q), self.call.sampling.num_samples
        free_GP, open_G = self.question_GP < 0, self.open_GP.sum(axis=1)
        hungry = bool((free_GP.any(axis=1) & (open_G < plan.rows)).any())
        room = min(Q - self.next, int(free_GP.sum()))
        if not room or (not hungry and room < plan.reads * plan.shards):
            return None
        size, per_shard = plan.reads * plan.shards, plan.lanes // plan.shards
        questions_Q, lane_Q, page_Q = np.full(size, -1), np.zeros(size, np.int32), np.zeros(size, np.int32)
        seated = np.zeros(plan.shards, int)
        while self.next < Q:
            free_G = (self.question_GP < 0).any(axis=1) & np.repeat(seated < plan.reads, per_shard)
            if not free_G.any():
                break
            lane = int(np.argmin(np.where(free_G, open_G, np.iinfo(int).max)))
            shard, page = lane // per_shard, int(np.argmax(self.question_GP[lane] < 0))
            seat = shard * plan.reads + seated[shard]
            questions_Q[seat], lane_Q[seat], page_Q[seat] = self.next, lane % per_shard, page
            self.question_GP[lane, page], self.since_GP[lane, page] = self.next, number
            self.row_GX[lane, page * n : (page + 1) * n] = self.next * n + np.arange(n)
            self.place |= {self.next * n + s: (lane, page * n + s) for s in range(n)}
            self.open_GP[lane, page] = n
            open_G[lane] += n
            seated[shard] += 1
            self.next += 1
        numbers_Q = np.maximum(questions_Q, 0).astype(np.int32)
        return questions_Q, Seats(questions_Q >= 0, lane_Q, page_Q, numbers_Q)

    def note_open(self, chunk: Chunk, open_GP: np.ndarray) -> None:
        """Which samples were open after a chunk. Pages whose samples have all ended are free."""
        if self.first_small is not None:
            self.open_GP = open_GP if chunk.number >= self.first_small else self.open_GP
            return
        known_GP = self.since_GP <= chunk.number
        self.open_GP = np.where(known_GP, open_GP, self.open_GP)
        self.question_GP = np.where(known_GP & (open_GP == 0), -1, self.question_GP)

    def begin(self, questions_Q: np.ndarray, begun_Qn2: np.ndarray, first: int) -> dict[int, Seen]:
        """Note what the samples of questions begin with. first: the number of the first of them in the batch."""
        call, seen = self.call, {}
        for question, begun_n2 in zip(questions_Q[first : first + len(begun_Qn2)].tolist(), begun_Qn2.tolist()):
            draft = call.prompts.drafts_QA[question].tolist()
            for row, (accepted, token) in enumerate(begun_n2, question * len(begun_n2)):
                if question >= 0:
                    self.open[row] = cut([*draft[:accepted], token][: call.drawing.longest], call.drawing.end_tokens)
                    seen[row] = self.look_at(row)
        return seen

    def go_on(self, chunk: Chunk, tokens_BT2: np.ndarray, first: int) -> dict[int, Seen]:
        """Note what a chunk wrote. first: the number of the first of its rows that are given."""
        seen, each = {}, chunk.written.tokens_BT2.shape[0] // len(chunk.row_GX)
        lane_B1 = ((first + np.arange(len(tokens_BT2))) // each)[:, None]
        token_BT, sample_BT = np.moveaxis(tokens_BT2, 2, 0)
        row_BT = np.where(sample_BT < 0, -1, chunk.row_GX[lane_B1, np.maximum(sample_BT, 0)])
        # A row of the array is that of few samples, one after the other: where the next one begins.
        turns_BT = np.diff(row_BT, axis=1, prepend=-2) != 0
        starts = np.flatnonzero(turns_BT).tolist()
        rows, tokens = row_BT[turns_BT].tolist(), token_BT.reshape(-1).tolist()
        for row, start, end in zip(rows, starts, [*starts[1:], len(tokens)]):
            if row in self.open:  # others are nobody's, or were found to have lost meanwhile
                self.open[row] += tokens[start:end]
                seen[row] = self.look_at(row)
        return seen

    def look_at(self, row: int) -> Seen:
        """An open row. No device goes on behind an end token."""
        tokens = self.open[row]
        return Seen(tokens, len(tokens) >= self.call.drawing.longest or tokens[-1] in self.ends)

    def look(self, chunk: Chunk, devices: Devices) -> None:
        """Read what a chunk wrote, and decide."""
        seen: dict[int, Seen] = {}
        for questions_Q, begun_Qn2 in chunk.begun:
            for first, mine in devices.own(begun_Qn2):
                seen |= self.begin(questions_Q, mine, first)
        for first, mine in devices.own(chunk.written.tokens_BT2):
            seen |= self.go_on(chunk, mine, first)
        self.note_open(chunk, devices.everywhere(chunk.written.open_GP))
        self.close(seen)

    def take_lost(self) -> np.ndarray:
        """Samples that the next chunk drops, bool [G, X]."""
        lost_GX, self.lost_GX = self.lost_GX, np.zeros_like(self.lost_GX)
        return lost_GX

    def close(self, seen: dict[int, Seen]) -> None:
        """Take the answers of rows that are done, or need not go on."""
        call = self.call
        lost = call.prune(seen) if call.prune and seen else set()
        for row in [row for row, of_row in seen.items() if of_row.done or row in lost]:
            self.answers[row] = self.open.pop(row)
        for row in lost:
            g, x = self.place[row]
            self.lost_GX[g, x] = self.row_GX[g, x] == row  # or its page has another question by now

    def move(self, origin_E: list[tuple[int, np.ndarray]], number: int) -> None:
        """Go on with the smaller batch from chunk `number` on. origin_E: what `shrink` gives of this host's lanes, with
        the number of the first of them.
        """
        plan = self.call.plan
        lanes, before_GX = plan.lanes // plan.shards, self.row_GX
        self.row_GX, self.place = np.full((plan.small * plan.shards, 1), -1), {}
        for first, origin in origin_E:
            shard = first // plan.small
            rows = before_GX[shard * lanes : (shard + 1) * lanes].reshape(-1)[origin]
            self.row_GX[first : first + len(origin), 0] = np.where(origin < 0, -1, rows)
        self.place = {int(row): (g, 0) for g, (row,) in enumerate(self.row_GX.tolist()) if row >= 0}
        self.lost_GX = np.array([[row >= 0 and row not in self.open] for (row,) in self.row_GX.tolist()])
        self.first_small, self.open_GP = number, np.ones((len(self.row_GX), 1), int)

    @property
    def all_read(self) -> bool:
        """Whether no question waits."""
        return self.next == len(self.call.prompts.keys_Q)

    @property
    def finished(self) -> bool:
        """Whether no sample is left, on any host."""
        return self.all_read and not self.open_GP.any()

    @property
    def fits_small(self) -> bool:
        """Whether the smaller batch holds all samples that are left."""
        plan = self.call.plan
        if self.first_small is not None or not plan.small or not self.all_read:
            return False
        return bool((self.open_GP.reshape(plan.shards, -1).sum(axis=1) <= plan.small).all())
