"""Arrays in, arrays out: the pure functions that the project is built of, for programs of one's own.

None of them reads a setting, a file or a clock. `model` is static, `params` is a nested dict of arrays. All run under
`jax.jit` and on any mesh. Shapes are in the names: B row, Q question, n samples, P prompt position, L answer position,
V vocabulary.

    prompts = left_pad(token_lists, texts)                                Q lists -> Prompts, tokens_QP
    uniform_BL2 = row_uniforms(prompts.keys_Q, seed, round, n, L)         all that is random in B = Q * n answers
    tokens_QnL, lengths_Qn = sample_tokens(model, params, prompts, uniform_BL2, strategy=..., end_tokens=...)

or step by step: `prefill` reads the prompts, `decode_chunk` adds tokens to all rows, `draw` makes a token of logits.
"""

from pmc_jax.sampling.decode import CHUNK, DecodeState, decode_chunk
from pmc_jax.sampling.draw import draw
from pmc_jax.sampling.one_program import sample_tokens
from pmc_jax.sampling.params import GREEDY, SamplingStrategy
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.sampling.prompts import Prompts, left_pad, with_drafts
from pmc_jax.sampling.uniforms import row_uniforms

__all__ = [
    "CHUNK",
    "GREEDY",
    "DecodeState",
    "PrefillPlan",
    "Prompts",
    "SamplingStrategy",
    "decode_chunk",
    "draw",
    "left_pad",
    "prefill",
    "row_uniforms",
    "sample_tokens",
    "with_drafts",
]
