"""Pages of lanes: questions are read into pages that are free, and the last samples move to a smaller batch.

Both work shard by shard, so that nothing of a cache goes from one device to another.

Axes: as in lanes.py; Q question that is read, E sample that is moved, and lane of the smaller batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.models.attention import SlotsFirst
from pmc_jax.sampling.buckets import LanePlan
from pmc_jax.sampling.lanes import Drawing, LaneState, Samples, by_lane, is_drawn, lay_out, per_shard
from pmc_jax.sampling.prefill import PrefillPlan, along_drafts, empty_decode_cache, pin_cache, read_prompts, rows_axis
from pmc_jax.sampling.prompts import Prompts


class Seats(NamedTuple):
    """Where Q questions go.

    Attributes:
        alive_Q: bool, False on questions that only fill the batch up.
        lane_Q: int32, the lane, counted within its shard.
        page_Q: int32, the page of the lane.
        number_Q: int32, see `Samples`.
    """

    alive_Q: Any
    lane_Q: Any
    page_Q: Any
    number_Q: Any


class Read(NamedTuple):
    """Questions that have been read: their cache, and what of `Samples` is theirs."""

    cache: list
    ready_Qn: jax.Array
    first_Qn: jax.Array
    accepted_Qn: jax.Array
    uniform_QnL2: jax.Array
    prompt_QW: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "drawing", "plan"), donate_argnames=("state",))
def fill_pages(
    model: Decoder,
    params: Any,
    state: LaneState,
    questions: tuple[Prompts, Seats, jax.Array],
    *,
    drawing: Drawing,
    plan: PrefillPlan,
) -> tuple[LaneState, jax.Array]:
    """Read questions into pages. All samples of what was there have ended.

    Args:
        model: static.
        params: laid out for decoding.
        state: it is donated.
        questions: Q prompts with drafts, their seats, and float32 random numbers [Q, n, L, 2] of their samples. Each
            shard's questions stay on it.
        drawing: static.
        plan: how prompts are read; static.

    Returns:
        The state, and int32 [Q, n, 2]: how many tokens of the draft each sample accepts, and the first one that is not
        the draft's.
    """
    prompts, seats, uniform_QnL2 = questions
    drafts_QA, (Q, n) = prompts.drafts_QA, uniform_QnL2.shape[:2]
    A = drafts_QA.shape[1]
    uniform_QnA2 = uniform_QnL2[:, :, :A]
    drawn_QnA, cache = read_prompts(model, params, prompts, seats.alive_Q, uniform_QnA2, drawing.strategy, plan)
    drafts_BA = jnp.repeat(drafts_QA, n, axis=0)
    accepted_B, first_B, ended_B = along_drafts(drawn_QnA.reshape(Q * n, A), drafts_BA, drawing.end_tokens)
    ready_B = ~ended_B & jnp.repeat(seats.alive_Q, n) & (accepted_B + 1 < drawing.longest)
    ready_Qn, first_Qn, accepted_Qn = (x.reshape(Q, n) for x in (ready_B, first_B, accepted_B))
    read = Read(pin_cache(cache, drawing.sharding), ready_Qn, first_Qn, accepted_Qn, uniform_QnL2, prompts.mask_QP)
    kept = state.prompt_cache, state.samples
    prompt_cache, samples = per_shard(seat_questions, drawing.sharding.mesh, kept, kept, read, seats)
    state = lay_out(state._replace(prompt_cache=prompt_cache, samples=samples), drawing.sharding)
    begun_Qn2 = jnp.stack([accepted_Qn, first_Qn], axis=2)
    return state, jax.lax.with_sharding_constraint(begun_Qn2, meshes.row_sharding(drawing.sharding.mesh))


def seat_questions(kept: tuple[list, Samples], read: Read, seats: Seats) -> tuple[list, Samples]:
    """Write what was read into its pages, question by question."""
    slots = read.cache[0][1].shape[-2]

    def seat(q: jax.Array, kept: tuple[list, Samples]) -> tuple[list, Samples]:
        cache, samples = kept
        lane, page, alive = seats.lane_Q[q], seats.page_Q[q], seats.alive_Q[q]
        n = read.ready_Qn.shape[1]

        def write(old, new, starts):
            """One question's in its place. starts: {axis: where}."""
            rows = rows_axis(old.shape)
            new = jax.lax.dynamic_slice_in_dim(new, q, 1, rows)
            index = [starts.get(axis, 0) for axis in range(old.ndim)]
            before = jax.lax.dynamic_slice(old, index, new.shape)
            return jax.lax.dynamic_update_slice(old, jnp.where(alive, new.astype(old.dtype), before), index)

        def write_cache(old, new, axis):
            return write(old, new, {rows_axis(old.shape): lane, old.ndim + axis: page * slots})

        at_page, at_samples = {0: lane, 1: page}, {0: lane, 1: page * n}
        return map_cache(write_cache, cache, read.cache), Samples(
            write(samples.ready_GX, read.ready_Qn, at_samples),
            write(samples.first_GX, read.first_Qn, at_samples),
            write(samples.accepted_GX, read.accepted_Qn, at_samples),
            write(samples.uniform_GXL2, read.uniform_QnL2, at_samples),
            write(samples.prompt_GPW, read.prompt_QW[:, None], at_page),
            write(samples.number_GP, seats.number_Q[:, None], at_page),
        )

    return jax.lax.fori_loop(0, len(seats.lane_Q), seat, kept)


@functools.partial(jax.jit, static_argnames=("rows", "sharding"))
def shrink(state: LaneState, rows: int, sharding: Any) -> tuple[LaneState, jax.Array]:
    """The last samples in a smaller batch, a lane with one row and one page for each.

    Args:
        state: no shard has more than `rows` samples that have not ended.
        rows: of the smaller batch, on each shard; static.
        sharding: of a cache; static.

    Returns:
        The smaller batch, and which sample each of its lanes has: int32 [E], counted within the shard, -1 = none.
    """
    small, origin_E = per_shard(functools.partial(_shrink, rows), sharding.mesh, (state, state.sample_B), state)
    return lay_out(small, sharding), origin_E


def _shrink(rows: int, state: LaneState) -> tuple[LaneState, jax.Array]:
    """`shrink` on one shard."""
    s, (G, X), P = state.samples, state.samples.ready_GX.shape, state.samples.number_GP.shape[1]
    n, R, Y = X // P, len(state.sample_B) // G, state.mask_BY.shape[1]
    open_GX = is_drawn(state) | s.ready_GX
    chosen_E = jnp.argsort(~open_GX.reshape(-1), stable=True)[:rows]
    is_open_E, ready_E = open_GX.reshape(-1)[chosen_E], s.ready_GX.reshape(-1)[chosen_E]
    lane_E, sample_E = chosen_E // X, chosen_E % X
    page_E = sample_E // n
    row_E = lane_E * R + jnp.argmax(by_lane(state.sample_B, G)[lane_E] == sample_E[:, None], axis=1)
    slots_ES = (page_E * (Y // P))[:, None] + jnp.arange(Y // P)[None]

    def page_of(x, axis):
        """The slots of each sample's page, of all lanes' pages."""
        rows_first = jnp.moveaxis(x, (rows_axis(x.shape), axis), (0, 1))
        return jnp.moveaxis(rows_first[lane_E[:, None], slots_ES], (0, 1), (rows_axis(x.shape), axis))

    def row_of(x, axis):
        return jnp.take(x, row_E, axis=rows_axis(x.shape))

    samples = Samples(
        ready_E[:, None],
        s.first_GX.reshape(-1)[chosen_E][:, None],
        s.accepted_GX.reshape(-1)[chosen_E][:, None],
        s.uniform_GXL2.reshape(G * X, 1, *s.uniform_GXL2.shape[2:])[chosen_E],
        s.prompt_GPW[lane_E, page_E][:, None],
        jnp.zeros((rows, 1), jnp.int32),
    )
    mask_ES = jnp.take_along_axis(state.mask_BY[row_E], slots_ES, axis=1)
    small = LaneState(
        state.step,
        jnp.where(is_open_E & ~ready_E, 0, -1),
        state.token_B[row_E],
        state.count_B[row_E],
        mask_ES,
        map_cache(page_of, state.prompt_cache),
        map_cache(row_of, state.decode_cache),
        samples,
    )
    return small, jnp.where(is_open_E, chosen_E, -1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("model", "plan", "drawing"))
def empty_lanes(
    model: Decoder, params: Any, prompts: Prompts, uniform_QnL2: jax.Array, *, plan: LanePlan, drawing: Drawing
) -> LaneState:
    """Lanes whose pages are all free. What is given tells the shapes.

    Args:
        model: static.
        params: laid out for decoding.
        prompts: some that will be read.
        uniform_QnL2: their random numbers.
        plan: static.
        drawing: static.
    """
    (Q, n, L, _), A, W = uniform_QnL2.shape, prompts.drafts_QA.shape[1], prompts.tokens_QP.shape[1]
    G, P, B, S = plan.lanes, plan.pages, plan.lanes * plan.rows, W + A - 1
    one = PrefillPlan(n, S)

    def cache_of_prompts():
        return read_prompts(model, params, prompts, jnp.ones(Q, bool), uniform_QnL2[:, :, :A], drawing.strategy, one)[1]

    like = jax.eval_shape(cache_of_prompts)
    samples = Samples(
        jnp.zeros((G, P * n), bool),
        jnp.zeros((G, P * n), jnp.int32),
        jnp.zeros((G, P * n), jnp.int32),
        jnp.zeros((G, P * n, L, 2), jnp.float32),
        jnp.zeros((G, P, W), bool),
        jnp.zeros((G, P), jnp.int32),
    )
    tokens_B, caches = (
        jnp.zeros(B, jnp.int32),
        (empty_decode_cache(like, G, P * S), empty_decode_cache(like, B, plan.ring)),
    )
    state = LaneState(jnp.int32(0), tokens_B - 1, tokens_B, tokens_B, jnp.zeros((B, P * S), bool), *caches, samples)
    return lay_out(state, drawing.sharding)


def map_cache(change: Callable[..., jax.Array], *caches: list) -> list:
    """change(array, .., slot axis) of each array of caches of one kind."""

    def of_entry(*entries: Any) -> Any:
        slots_first = isinstance(entries[0], SlotsFirst)
        pair = change(*(e[0] for e in entries), -2 if slots_first else -1), change(*(e[1] for e in entries), -2)
        return SlotsFirst(*pair) if slots_first else pair

    return [of_entry(*entries) for entries in zip(*caches, strict=True)]
