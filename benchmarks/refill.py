"""How many of the decode steps that rows take give a token that is wanted: the sampler's own schedule, replayed on
drawn answers, without a model.

    python benchmarks/refill.py [--questions=400] [--samples=20] [--shards 1 2 4] [--rows 256 512]

`ForcedLanes` does what the devices do (sampling/lanes.py) in numpy, on answers that are given. The host's part is the
project's own (sampling/ledger.py). Lengths are drawn as TOFU's, 45 tokens on average; nothing is pruned and no answer
has a draft, which would both leave more for the host to bring in, and less to draw.
"""

import argparse

import numpy as np
from pages import table

from pmc_jax import config as settings
from pmc_jax.distributed.device_kind import ACCELERATOR
from pmc_jax.plan import sampling as sampling_plan
from pmc_jax.plan.abstract import Assumed
from pmc_jax.sampling.buckets import plan_lanes
from pmc_jax.sampling.lanes import Drawing, Written
from pmc_jax.sampling.ledger import LaneCall, Ledger
from pmc_jax.sampling.pages import Seats
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prompts import Prompts
from pmc_jax.sampling.refill import draw_in_lanes

ASSUMED = Assumed(400, 36, 64, 45)
END = 0


class ForcedLanes:
    """Lanes in numpy, whose answers are given: what `fill_pages`, `decode_lanes` and `shrink` do to them.

    Args:
        call: sizes.
        tokens_BL: token ids of all answers, question-major.
        lengths_B: of the answers.
        shards: the data shards that are this host's.
    """

    def __init__(self, call: LaneCall, tokens_BL: np.ndarray, lengths_B: np.ndarray, shards: list[int]):
        plan, num_samples = call.plan, call.sampling.num_samples
        self.call, self.shards = call, shards
        self.tokens_BL, self.lengths_B, self.num_samples = tokens_BL, lengths_B, num_samples
        self.row_GX = np.full((plan.lanes, plan.pages * num_samples), -1)  # which answer each sample is
        self.ready_GX = np.zeros(self.row_GX.shape, bool)
        self.sample_GR = np.full((plan.lanes, plan.rows), -1)
        self.count_GR = np.zeros((plan.lanes, plan.rows), int)
        self.lanes = plan.lanes // plan.shards
        self.row_steps = self.wanted = 0

    def read(self, questions_Q: np.ndarray, seats: Seats) -> np.ndarray:
        """See `Devices`."""
        lanes_Q = seats.lane_Q + np.arange(len(questions_Q)) // self.call.plan.reads * self.lanes
        n = self.num_samples
        begun_Qn2 = np.zeros((len(questions_Q), n, 2), np.int32)
        for seat in np.flatnonzero(questions_Q >= 0):
            rows = questions_Q[seat] * n + np.arange(n)
            samples = slice(seats.page_Q[seat] * n, (seats.page_Q[seat] + 1) * n)
            self.row_GX[lanes_Q[seat], samples] = rows
            self.ready_GX[lanes_Q[seat], samples] = self.lengths_B[rows] > 1
            begun_Qn2[seat, :, 1] = self.tokens_BL[rows, 0]
        return begun_Qn2

    def take(self) -> None:
        """Free rows take the samples that are ready, those of the oldest questions first."""
        for g in np.flatnonzero((self.sample_GR < 0).any(axis=1) & self.ready_GX.any(axis=1)):
            ready = np.flatnonzero(self.ready_GX[g])
            free = np.flatnonzero(self.sample_GR[g] < 0)
            taken = ready[np.argsort(self.row_GX[g, ready])][: len(free)]
            self.sample_GR[g, free[: len(taken)]], self.count_GR[g, free[: len(taken)]] = taken, 1
            self.ready_GX[g, taken] = False

    def decode(self, lost_GX: np.ndarray) -> Written:
        """See `Devices`."""
        steps = self.call.kind.look_steps
        G, R = self.sample_GR.shape
        lost_GR = np.take_along_axis(lost_GX, np.maximum(self.sample_GR, 0), axis=1)
        self.sample_GR[lost_GR] = -1
        self.ready_GX &= ~lost_GX
        written_GRT2 = np.full((G, R, steps, 2), -1, np.int32)
        taken_steps = 0
        for t in range(steps):
            if not ((self.sample_GR >= 0).any() or self.ready_GX.any()):
                break
            self.take()
            g, r = np.nonzero(self.sample_GR >= 0)
            rows, count = self.row_GX[g, self.sample_GR[g, r]], self.count_GR[g, r]
            written_GRT2[g, r, t] = np.stack([self.tokens_BL[rows, count], self.sample_GR[g, r]], axis=1)
            self.count_GR[g, r] += 1
            ended = count + 1 >= self.lengths_B[rows]
            self.sample_GR[g[ended], r[ended]] = -1
            self.row_steps, self.wanted, taken_steps = self.row_steps + G * R, self.wanted + len(g), taken_steps + 1
        per_page = min(self.num_samples, self.row_GX.shape[1])
        open_GP = self.open_samples().reshape(G, -1, per_page).sum(axis=2)
        return Written(written_GRT2.reshape(G * R, steps, 2), open_GP, np.int32(taken_steps))

    def open_samples(self) -> np.ndarray:
        """Which samples have not ended, [G, X]."""
        is_open_GX = self.ready_GX.copy()
        g, r = np.nonzero(self.sample_GR >= 0)
        is_open_GX[g, self.sample_GR[g, r]] = True
        return is_open_GX

    def shrink(self) -> np.ndarray:
        """See `Devices`."""
        plan, is_open_GX = self.call.plan, self.open_samples()
        count_GX = np.zeros(self.row_GX.shape, int)
        g, r = np.nonzero(self.sample_GR >= 0)
        count_GX[g, self.sample_GR[g, r]] = self.count_GR[g, r]
        shard_open = is_open_GX.reshape(plan.shards, -1)
        origin = np.argsort(~shard_open, axis=1, kind="stable")[:, : plan.small]
        places = origin + np.arange(plan.shards)[:, None] * self.lanes * self.row_GX.shape[1]
        row, ready, count = (x.reshape(-1)[places].reshape(-1, 1) for x in (self.row_GX, self.ready_GX, count_GX))
        is_open = np.take_along_axis(shard_open, origin, axis=1).reshape(-1, 1)
        self.row_GX, self.ready_GX, self.count_GR = row, ready & is_open, count
        self.sample_GR = np.where(is_open & ~ready, 0, -1)
        return np.where(is_open, origin.reshape(-1, 1), -1)[:, 0]

    def own(self, x: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """See `Devices`."""
        each = len(x) // self.call.plan.shards
        return [(shard * each, x[shard * each : (shard + 1) * each]) for shard in self.shards]

    def everywhere(self, x: np.ndarray) -> np.ndarray:
        """See `Devices`."""
        return x


def forced_call(
    questions: int, sampling: SamplingParams, max_rows: int, shards: int, end_tokens: tuple[int, ...], prune=None
) -> LaneCall:
    """A call of so many questions without a model, as an accelerator has it; prompts and drafts as `plan` assumes."""
    width = 112  # slots of a prompt of 64 tokens and of a draft of 45, both with some room
    plan = plan_lanes(questions, width, sampling, max_rows, shards, ACCELERATOR)
    nothing_Q1 = np.full((questions, 1), -1, np.int32)
    prompts = Prompts(nothing_Q1, nothing_Q1 >= 0, np.arange(questions, dtype=np.uint32), nothing_Q1)
    drawing = Drawing(sampling.strategy, end_tokens, sampling.max_new_tokens, None)
    return LaneCall(None, None, prompts, sampling, drawing, plan, ACCELERATOR, 0, prune)


def replay(call: LaneCall, lengths_B: np.ndarray) -> ForcedLanes:
    """Draw all answers of these lengths."""
    tokens_BL = np.ones((len(lengths_B), call.sampling.max_new_tokens), np.int32)
    tokens_BL[np.arange(len(lengths_B)), lengths_B - 1] = END
    devices = ForcedLanes(call, tokens_BL, lengths_B, list(range(call.plan.shards)))
    for _ in draw_in_lanes(ledger := Ledger(call), devices):
        pass
    drawn = [len(ledger.answers[row]) for row in range(len(lengths_B))]
    assert drawn == lengths_B.tolist(), "an answer is not what was given"
    return devices


def shrinking_share(rows: int, shards: int, sampling: SamplingParams, lengths_B: np.ndarray) -> float:
    """The share of batches that shrink, and are not refilled."""
    config = settings.changed(settings.default(), {"sample.num_samples": sampling.num_samples})
    sizes = sampling_plan.shrinking_steps(config, min(rows * shards, len(lengths_B)), shards, ASSUMED)
    return float(rows * shards * (np.mean(lengths_B) - 1) / sum(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--shards", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--rows", nargs="*", type=int, default=[256, 512])
    asked, lines = parser.parse_args(), []
    sampling = SamplingParams(num_samples=asked.samples, max_new_tokens=settings.default().sample.max_new_tokens)
    drawn = ASSUMED.lengths(sampling.max_new_tokens, asked.questions * asked.samples)
    lengths_B = np.random.default_rng(0).permutation(drawn)
    longest_Q = lengths_B.reshape(asked.questions, -1).max(axis=1)
    by_question = (np.mean(lengths_B) - 1) / (np.mean(longest_Q) - 1)
    for shards in asked.shards:
        for rows in asked.rows:
            call = forced_call(asked.questions, sampling, rows, shards, (END,))
            devices = replay(call, lengths_B)
            shares = devices.wanted / devices.row_steps, by_question, shrinking_share(rows, shards, sampling, lengths_B)
            lines.append([f"{rows} x {shards}", f"{devices.row_steps}", *(f"{share:.2f}" for share in shares)])
    heads = ["rows x shards", "row-steps", "refilled row by row", "by whole questions", "batches that shrink"]
    print(table(heads, lines))


if __name__ == "__main__":
    main()
