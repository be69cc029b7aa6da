"""Whole answers in one program: what the engine gives, without a host that looks between chunks.

It is for a `jax.jit` of one's own. The engine is quicker where answers differ in length, since it compacts its batches.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from pmc_jax.models import Decoder
from pmc_jax.models.layer_stack import stack_layers
from pmc_jax.sampling.decode import CHUNK, DecodeState, decode_chunk
from pmc_jax.sampling.params import SamplingStrategy
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.sampling.prompts import Prompts


def sample_tokens(
    model: Decoder,
    params: Any,
    prompts: Prompts,
    uniform_BL2: jax.Array,
    *,
    strategy: SamplingStrategy,
    end_tokens: tuple[int, ...],
    cache_sharding: NamedSharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """n answers of at most L tokens to each of Q prompts. A pure function of arrays.

    Args:
        model: static.
        params: its parameters.
        prompts: of Q questions (`left_pad`).
        uniform_BL2: float32, the random numbers of B = Q * n rows (`row_uniforms`).
        strategy: what is drawn from; static.
        end_tokens: ids that end an answer; static.
        cache_sharding: where keys and values lie; None = the compiler decides.

    Returns:
        Token ids int32 [Q, n, L], 0 behind each answer's end, and the answers' lengths int32 [Q, n], the end token
        included where one was drawn. They are those of the engine for the same random numbers.
    """
    Q, (B, L, _), ends = len(prompts.keys_Q), uniform_BL2.shape, np.array(end_tokens)
    plan = PrefillPlan(B // Q, slots=L, cache_sharding=cache_sharding)
    static = dict(strategy=strategy, end_tokens=end_tokens)
    if model.scan:
        params = stack_layers(model.config.layers, params)
    uniform_BA2 = uniform_BL2[:, : prompts.drafts_QA.shape[1]]
    state, accepted_B = prefill(model, params, prompts, jnp.ones(Q, bool), uniform_BA2, plan=plan, **static)

    def next_chunk(chunk: jax.Array, state: DecodeState) -> DecodeState:
        position_BT = accepted_B[:, None] + chunk * CHUNK + jnp.arange(CHUNK)[None]
        uniform_BT2 = jnp.take_along_axis(uniform_BL2, jnp.minimum(position_BT, L - 1)[:, :, None], axis=1)
        last_step = jnp.minimum((chunk + 1) * CHUNK, L)
        return decode_chunk(model, params, state, uniform_BT2, last_step, **static)

    state = jax.lax.fori_loop(0, -(-L // CHUNK), next_chunk, state)
    drafts_BA = jnp.repeat(prompts.drafts_QA, B // Q, axis=0)
    tokens_BX = jnp.concatenate([drafts_BA, state.tokens_BC], axis=1)
    index_1L, first_B1 = jnp.arange(L)[None], accepted_B[:, None]
    index_BL = jnp.where(index_1L < first_B1, index_1L, index_1L - first_B1 + drafts_BA.shape[1])
    tokens_BL = jnp.take_along_axis(tokens_BX, index_BL, axis=1)
    is_end_BL = jnp.isin(tokens_BL, ends)
    length_B = jnp.where(jnp.any(is_end_BL, axis=1), jnp.argmax(is_end_BL, axis=1) + 1, L).astype(jnp.int32)
    tokens_BL = jnp.where(index_1L < length_B[:, None], tokens_BL, 0)
    return tokens_BL.reshape(Q, -1, L), length_B.reshape(Q, -1)
