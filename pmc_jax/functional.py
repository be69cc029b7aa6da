"""Arrays in, arrays out: the pure functions that the project is built of, for programs of one's own.

None of them reads a setting, a file or a clock. `model` is static, `params` is a nested dict of arrays. All run under
`jax.jit` and on any mesh. Shapes are in the names: B row, Q question, n samples, P prompt position, L answer position,
V vocabulary, S data shard, A label, E example.

Sampling:

    prompts = left_pad(token_lists, texts)                                Q lists -> Prompts, tokens_QP
    uniform_BL2 = row_uniforms(prompts.keys_Q, seed, round, n, L)         all that is random in B = Q * n answers
    tokens_QnL, lengths_Qn = sample_tokens(model, params, prompts, uniform_BL2, strategy=..., end_tokens=...)

or step by step: `prefill` reads the prompts, `decode_chunk` adds tokens to all rows, `draw` makes a token of logits.

Training:

    packing = plan_packing(batches, longest, prefix, shards, micro_batches)   the one shape of all batches
    batch = put_batch(pack(rows, packing, shards), mesh)                      rows -> Batch, on the mesh
    terms = compute_terms(model, params, batch, index)                        log_probs_SA, nll_SE, ... of a micro-batch
    loss = objective.loss(terms, hyperparameters(objective))                  its share of the loss
    state, metrics = update(model, recipe, state, batch)                      one optimizer step; the state is donated

`examples/own_loop.py` is a whole loop.
"""

from pmc_jax.data.packing import FORGET, RETAIN, Batch, Packing, Row, pack, plan_packing
from pmc_jax.sampling.decode import CHUNK, DecodeState, decode_chunk
from pmc_jax.sampling.draw import draw
from pmc_jax.sampling.one_program import sample_tokens
from pmc_jax.sampling.params import GREEDY, SamplingStrategy
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.sampling.prompts import Prompts, left_pad, with_drafts
from pmc_jax.sampling.uniforms import row_uniforms
from pmc_jax.training.forward import Terms, Wanted, compute_terms
from pmc_jax.training.objectives import OBJECTIVES, Objective, hyperparameters
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.update import TrainState, create_state, on_mesh, put_batch, update

__all__ = [
    "CHUNK",
    "FORGET",
    "GREEDY",
    "OBJECTIVES",
    "RETAIN",
    "Batch",
    "DecodeState",
    "Objective",
    "Packing",
    "PrefillPlan",
    "Prompts",
    "Recipe",
    "Row",
    "SamplingStrategy",
    "Terms",
    "TrainState",
    "Wanted",
    "compute_terms",
    "create_state",
    "decode_chunk",
    "draw",
    "hyperparameters",
    "left_pad",
    "on_mesh",
    "pack",
    "plan_packing",
    "prefill",
    "put_batch",
    "row_uniforms",
    "sample_tokens",
    "update",
    "with_drafts",
]
