"""Lanes: decoding that never waits for a batch to end. A row whose sample ends takes the next sample by itself.

A lane has R rows, and P pages of the prompt cache. A page holds a question, its draft, and all that its n samples need
to begin: the first token after the accepted part of the draft, and their random numbers. Each row draws one sample of
any page of its lane, and its mask keeps it to the slots of that page. In the step after a sample's end its row goes on
with the next sample that is ready. The host only has to bring questions into pages whose samples have all ended, well
ahead.

                 prompt_cache, one a lane                          decode_cache, one a row
    slots:       page 0            | page 1            | ..        0 ...... t % C ...... C-1, a ring
    mask, a row: 0 0 0 0, 0 0 0 0  | 0 1 1 1, 1 1 0 0  | ..        its own: since its sample's first token

All rows write the same slot in a step, t % C, wherever their sample began. A write of one slot for all rows stays what
it is in lock-step, in place. Each row looks only at the slots since its sample's beginning.

Axes: G lane, R row of a lane, B = G * R row, P page, n sample of a page, X = P * n sample of a lane, S slot of a page,
W prompt slot of a page, A draft slot, C slot of the ring, L token of an answer, T step of a chunk, Q question that is
read, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pmc_jax.distributed import meshes
from pmc_jax.models import Decoder
from pmc_jax.sampling.decode import read_token
from pmc_jax.sampling.draw import draw
from pmc_jax.sampling.params import SamplingStrategy
from pmc_jax.sampling.prefill import pin_cache, rows_axis


class Samples(NamedTuple):
    """What the samples of each lane's pages begin with.

    Attributes:
        ready_GX: bool, nobody draws the sample yet.
        first_GX: int32, its first token that is not the draft's.
        accepted_GX: int32, the tokens of the draft before it.
        uniform_GXL2: float32, the random numbers of its tokens.
        prompt_GPW: bool, slots of each page that hold the prompt.
        number_GP: int32, of the question in each page. Rows take the samples of lower numbers first.
    """

    ready_GX: jax.Array
    first_GX: jax.Array
    accepted_GX: jax.Array
    uniform_GXL2: jax.Array
    prompt_GPW: jax.Array
    number_GP: jax.Array


class LaneState(NamedTuple):
    """All that a decode step needs. A frozen value: a chunk maps it to the next one.

    Attributes:
        step: int32 scalar, decode steps so far.
        sample_B: int32, which sample of its lane each row draws; -1 = none.
        token_B: int32, its newest token, which is not read yet.
        count_B: int32, its tokens so far, without those of the draft.
        mask_BY: bool, slots of the lane's pages that the row looks at, Y = P * S.
        prompt_cache: per layer, keys and values of the pages, (k_GKHY, v_GKYH), or SlotsFirst.
        decode_cache: per layer, keys and values of the rows, (k_BKHC, v_BKCH), or SlotsFirst.
        samples: of the pages.
    """

    step: jax.Array
    sample_B: jax.Array
    token_B: jax.Array
    count_B: jax.Array
    mask_BY: jax.Array
    prompt_cache: list
    decode_cache: list
    samples: Samples


class Drawing(NamedTuple):
    """How samples are drawn; static.

    Attributes:
        strategy: what is drawn from.
        end_tokens: ids that end an answer.
        longest: tokens of an answer at which it ends.
        sharding: where a cache lies.
    """

    strategy: SamplingStrategy
    end_tokens: tuple[int, ...]
    longest: int
    sharding: NamedSharding


class Written(NamedTuple):
    """What a chunk wrote.

    Attributes:
        tokens_BT2: int32, the token of each step, and which sample of the lane it belongs to; -1 = none.
        open_GP: int32, samples of each page that have not ended, the same on all hosts.
        steps: int32 scalar, decode steps that were taken, the same on all hosts.
    """

    tokens_BT2: jax.Array
    open_GP: jax.Array
    steps: jax.Array


def by_lane(x_B: jax.Array, lanes: int) -> jax.Array:
    """[B, ..] -> [G, R, ..]."""
    return x_B.reshape(lanes, -1, *x_B.shape[1:])


def take_samples(state: LaneState) -> LaneState:
    """Rows without a sample take those that are ready, each lane its own, the oldest question first."""
    samples, (G, X), P = state.samples, state.samples.ready_GX.shape, state.samples.number_GP.shape[1]
    free_GR = by_lane(state.sample_B, G) < 0
    # The number of ready samples that come before each one: of its own page, and of pages with older questions.
    ready_GPn = samples.ready_GX.reshape(G, P, -1)
    count_GP = jnp.sum(ready_GPn, axis=2, dtype=jnp.int32)
    older_GPP = samples.number_GP[:, None, :] < samples.number_GP[:, :, None]
    before_GP = jnp.sum(jnp.where(older_GPP, count_GP[:, None, :], 0), axis=2)
    rank_GX = (before_GP[:, :, None] + jnp.cumsum(ready_GPn, axis=2) - 1).reshape(G, X)
    rank_GR = jnp.cumsum(free_GR, axis=1) - 1
    takes_GRX = free_GR[:, :, None] & samples.ready_GX[:, None, :] & (rank_GX[:, None, :] == rank_GR[:, :, None])
    taken_GR, sample_GR = jnp.any(takes_GRX, axis=2), jnp.argmax(takes_GRX, axis=2).astype(jnp.int32)
    first_GR, accepted_GR = (
        jnp.take_along_axis(x_GX, sample_GR, axis=1) for x_GX in (samples.first_GX, samples.accepted_GX)
    )
    slots = state.mask_BY.shape[1] // P - samples.prompt_GPW.shape[2]  # of the draft
    draft_GRA = jnp.arange(slots)[None, None] < accepted_GR[:, :, None]
    page_GRP = (sample_GR // (X // P))[:, :, None] == jnp.arange(P)[None, None]
    shape = *page_GRP.shape, samples.prompt_GPW.shape[2]
    prompt_GRPW = jnp.broadcast_to(samples.prompt_GPW[:, None], shape)
    draft_GRPA = jnp.broadcast_to(draft_GRA[:, :, None], (*page_GRP.shape, slots))
    mask_GRPS = page_GRP[..., None] & jnp.concatenate([prompt_GRPW, draft_GRPA], axis=3)
    taken_B = taken_GR.reshape(-1)
    return state._replace(
        sample_B=jnp.where(taken_B, sample_GR.reshape(-1), state.sample_B),
        token_B=jnp.where(taken_B, first_GR.reshape(-1), state.token_B),
        count_B=jnp.where(taken_B, 1, state.count_B),
        mask_BY=jnp.where(taken_B[:, None], mask_GRPS.reshape(len(taken_B), -1), state.mask_BY),
        samples=samples._replace(ready_GX=samples.ready_GX & ~jnp.any(takes_GRX, axis=1)),
    )


def ring_mask(slot: jax.Array, count_B: jax.Array, slots: int, only_read: bool) -> jax.Array:
    """Which slots of the ring hold tokens of a row's sample, the one that is read now among them: [B, C], or, where
    the cache is only read, [B, C + 1]: those before it, and the token itself.
    """
    age_C = (slot - jnp.arange(slots)) % slots
    own_BC = age_C[None] < count_B[:, None]
    if not only_read:
        return own_BC
    return jnp.concatenate([own_BC & (age_C[None] > 0), jnp.ones((len(count_B), 1), bool)], axis=1)


def ring_slots(cache: list) -> int:
    """Slots of the rows' cache: of its first layer's values, where they stand before the head width."""
    return cache[0][1].shape[-2]


@functools.partial(jax.jit, static_argnames=("model", "drawing", "steps"), donate_argnames=("state",))
def decode_lanes(
    model: Decoder, params: Any, state: LaneState, lost_GX: jax.Array, *, drawing: Drawing, steps: int
) -> tuple[LaneState, Written]:
    """Decode up to `steps` tokens for every row, until no sample is left.

    Args:
        model: static.
        params: laid out for decoding.
        state: it is donated.
        lost_GX: bool, samples that need not go on: they end, or are not begun.
        drawing: static.
        steps: T; static.

    Returns:
        The state after the last step, and what was written meanwhile.
    """
    (G, P), B = state.samples.number_GP.shape, len(state.sample_B)
    C, start, mesh = ring_slots(state.decode_cache), state.step, drawing.sharding.mesh

    def one_token(carry):
        s, written_2BT = carry
        s = with_rows(s, per_shard(take_samples, mesh, rows_of(s), rows_of(s)))
        slot = s.step % C
        mask_BX = jnp.concatenate([s.mask_BY, ring_mask(slot, s.count_B, C, bool(model.scan))], axis=1)
        position_B = jnp.sum(s.mask_BY, axis=1, dtype=jnp.int32) + s.count_B - 1
        cache = s.prompt_cache, s.decode_cache
        logits_BV, decode_cache = read_token(model, params, s.token_B, position_B, mask_BX, cache, slot)
        with jax.named_scope("draw"):
            pick = functools.partial(draw_next, drawing.strategy)
            next_B, drawn_B = per_shard(pick, mesh, (s.token_B, s.count_B), rows_of(s), logits_BV)
        written_2B1 = jnp.stack([next_B, s.sample_B])[:, :, None]
        written_2BT = jax.lax.dynamic_update_slice_in_dim(written_2BT, written_2B1, s.step - start, axis=2)
        ends_B = jnp.isin(next_B, np.array(drawing.end_tokens)) | (drawn_B + 1 >= drawing.longest)
        s = s._replace(
            step=s.step + 1,
            sample_B=jnp.where(ends_B, -1, s.sample_B),
            token_B=next_B,
            count_B=s.count_B + 1,
            decode_cache=decode_cache,
        )
        return s, written_2BT

    def unfinished(carry):
        s = carry[0]
        return (s.step - start < steps) & (jnp.any(s.sample_B >= 0) | jnp.any(s.samples.ready_GX))

    state = drop_samples(state, lost_GX)
    state, written_2BT = jax.lax.while_loop(unfinished, one_token, (state, jnp.full((2, B, steps), -1, jnp.int32)))
    open_GX = is_drawn(state) | state.samples.ready_GX
    open_GP = jnp.sum(open_GX.reshape(G, P, -1), axis=2, dtype=jnp.int32)
    written_BT2 = jax.lax.with_sharding_constraint(jnp.moveaxis(written_2BT, 0, 2), meshes.row_sharding(mesh))
    everywhere = jax.lax.with_sharding_constraint((open_GP, state.step - start), meshes.replicated_sharding(mesh))
    return lay_out(state, drawing.sharding), Written(written_BT2, *everywhere)


def lay_out(state: LaneState, sharding: NamedSharding) -> LaneState:
    """The same state with its rows over the data shards. Programs give a state back as they get it, or the next call
    would be compiled anew.

    Args:
        state: any.
        sharding: of a cache.
    """
    caches = pin_cache((state.prompt_cache, state.decode_cache), sharding)
    rest = jax.lax.with_sharding_constraint(rows_of(state), meshes.row_sharding(sharding.mesh))
    step = jax.lax.with_sharding_constraint(state.step, meshes.replicated_sharding(sharding.mesh))
    return rest._replace(step=step, prompt_cache=caches[0], decode_cache=caches[1])


def rows_of(state: LaneState) -> LaneState:
    """What is by row, lane and page, without the caches."""
    return state._replace(step=None, prompt_cache=None, decode_cache=None)


def with_rows(state: LaneState, rows: LaneState) -> LaneState:
    """The state with these rows, and its own caches."""
    return rows._replace(step=state.step, prompt_cache=state.prompt_cache, decode_cache=state.decode_cache)


def draw_next(strategy: SamplingStrategy, rows: LaneState, logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next token of each row, int32 [B], and how many tokens the row's answer has before it."""
    sample_GR = by_lane(jnp.maximum(rows.sample_B, 0), len(rows.samples.accepted_GX))
    drawn_GR = by_lane(rows.count_B, len(sample_GR)) + jnp.take_along_axis(rows.samples.accepted_GX, sample_GR, axis=1)
    uniform_B2 = pick_uniforms(rows.samples.uniform_GXL2, sample_GR, drawn_GR)
    return draw(logits_BV, uniform_B2, strategy), drawn_GR.reshape(-1)


def pick_uniforms(uniform_GXL2: jax.Array, sample_GR: jax.Array, index_GR: jax.Array) -> jax.Array:
    """The random numbers of one token of each row, [B, 2]; any numbers beyond the longest answer."""
    G, X, L, _ = uniform_GXL2.shape
    index_GR = sample_GR * L + jnp.minimum(index_GR, L - 1)
    return jnp.take_along_axis(uniform_GXL2.reshape(G, X * L, 2), index_GR[:, :, None], axis=1).reshape(-1, 2)


def drop_samples(state: LaneState, lost_GX: jax.Array) -> LaneState:
    """The state without some samples."""
    sample_GR = by_lane(state.sample_B, len(lost_GX))
    lost_B = jnp.take_along_axis(lost_GX, jnp.maximum(sample_GR, 0), axis=1).reshape(-1) & (state.sample_B >= 0)
    ready_GX = state.samples.ready_GX & ~lost_GX
    return state._replace(
        sample_B=jnp.where(lost_B, -1, state.sample_B), samples=state.samples._replace(ready_GX=ready_GX)
    )


def is_drawn(state: LaneState) -> jax.Array:
    """Whether a row draws each sample, bool [G, X]."""
    G, X = state.samples.ready_GX.shape
    return jnp.any(by_lane(state.sample_B, G)[:, :, None] == jnp.arange(X)[None, None], axis=1)


def per_shard(function: Callable[..., Any], mesh: Mesh, like: Any, *trees: Any) -> Any:
    """function(*trees) on each data shard by itself: left to the compiler, lanes and rows of a step would go from shard
    to shard.

    Args:
        function: of what a shard has.
        mesh: of all.
        like: a tree with the axes of what the function returns.
        *trees: their rows lie on the shards: the first axis, or in front of the last three of five.
    """

    def specs(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: PartitionSpec(*[None] * rows_axis(x.shape), "data") if x.ndim else PartitionSpec(), tree
        )

    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(map(specs, trees)),
        out_specs=specs(like),
        axis_names={"data"},
        check_vma=False,
    )(*trees)
