"""How a round's samples are drawn: sizes of its programs and caches, and how many rows each decode step has.

As the engine does: in lanes, whose rows are refilled, or in batches that shrink where a layer has a window.
"""

import heapq
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.distributed.device_kind import ACCELERATOR
from pmc_jax.methods.settings import read_schedule
from pmc_jax.models import Decoder
from pmc_jax.plan import abstract
from pmc_jax.plan.abstract import Assumed
from pmc_jax.sampling.buckets import BatchPlan, LanePlan, batch_buckets
from pmc_jax.sampling.engine import choose_plan
from pmc_jax.sampling.generate import round_sampling


class Sampling(NamedTuple):
    """Sizes on all shards together.

    Attributes:
        plan: how the engine cuts questions into lanes or batches.
        rows: answers decoded at once.
        prompts: prompts with drafts whose keys and values are kept.
        own_slots: slots of each row for its answer.
        reads: questions that are read at once.
        readings: how often, in a round.
        steps: rows of each decode step of a round.
    """

    plan: LanePlan | BatchPlan
    rows: int
    prompts: int
    own_slots: int
    reads: int
    readings: int
    steps: list[int]


def plan_sampling(model: Decoder, config: ConfigDict, shards: int, assumed: Assumed) -> Sampling:
    """The sampling of a round.

    Args:
        model: any.
        config: of the run.
        shards: data shards.
        assumed: what no setting says.
    """
    s, width = round_sampling(config), abstract.prefix_slots(config, assumed)
    questions = read_schedule(config, assumed.questions).round_size
    plan = choose_plan(model, questions, width, s, config.sample.max_rows, shards, ACCELERATOR)
    if isinstance(plan, LanePlan):
        rows, reads = plan.lanes * plan.rows, plan.reads * shards
        steps = refilled_steps(assumed.lengths(s.max_new_tokens, questions * s.num_samples), rows)
        readings = -(-questions // reads)
        return Sampling(plan, rows, plan.lanes * plan.pages, plan.ring, reads, readings, [rows] * steps)
    steps = plan.count * shrinking_steps(config, plan.rows, shards, assumed)
    readings = plan.count * plan.parts
    return Sampling(plan, plan.rows, plan.size, s.max_new_tokens, plan.size // plan.parts, readings, steps)


def refilled_steps(lengths: np.ndarray, rows: int) -> int:
    """Decode steps until all answers are there, each row taking the next one when its own has ended.

    As if no question were read late, and no row had anything of its draft: how much they have depends on how far the
    model has collapsed.
    """
    ends = [0] * rows
    for length in lengths.tolist():
        heapq.heapreplace(ends, ends[0] + length - 1)  # reading the prompt gives the first token
    return max(ends)


def shrinking_steps(config: ConfigDict, rows: int, shards: int, assumed: Assumed) -> list[int]:
    """Rows of each decode step of a batch, as the sampler shrinks it: done rows leave when a smaller size holds the
    others. As if no row had anything of its draft.
    """
    lengths = np.sort(assumed.lengths(config.sample.max_new_tokens, rows))
    buckets = batch_buckets(
        rows, shards, config.sample.max_new_tokens, ACCELERATOR, config.sample.num_samples, drafted=True
    )

    def fit(alive: int) -> int:
        return min(b.rows for b in buckets if b.rows >= alive)

    return [
        fit(max(1, rows - int(np.searchsorted(lengths, step, side="right")))) for step in range(1, int(lengths[-1]))
    ]
