"""PMC in a loop of one's own, under one's own jit and mesh: python own_loop.py CHECKPOINT FORGET.jsonl RETAIN.jsonl"""

import functools
import sys

import jax
import numpy as np

import pmc_jax
from pmc_jax import functional as F
from pmc_jax.data.prompts import Template, make_text, training_row
from pmc_jax.data.questions import read_file
from pmc_jax.distributed.meshes import make_mesh


def reward(original: str, answer: str) -> float:
    return 1 - len(set(answer.split()) & set(original.split())) / len(set(original.split()))


mesh, (path, forget_file, retain_file) = make_mesh(), sys.argv[1:]  # all devices share the rows
checkpoint, rounds, samples, length = pmc_jax.load(path, mesh=mesh), 6, 8, 48
text = make_text(checkpoint.tokenizer, Template(), checkpoint.end_tokens)
questions, retain = [row["question"] for row in read_file(forget_file)], read_file(retain_file)
prompts = F.left_pad([text.prompt(q) for q in questions], questions)
originals = [answers[0] for answers in pmc_jax.sample(checkpoint, questions, temperature=0.0)]
recipe, strategy = F.Recipe(2e-3, 0.01, 1, rounds, 1.0, ""), F.SamplingStrategy(temperature=1.3, top_k=50, top_p=0.95)
sample = functools.partial(F.sample_tokens, checkpoint.model, strategy=strategy, end_tokens=text.end_tokens)
step = functools.partial(F.update, F.on_mesh(checkpoint.model, mesh), recipe)
sample, step = jax.jit(sample), jax.jit(step, donate_argnums=0)
retain_rows = [training_row(text, r["question"], r["answer"], 200, F.RETAIN) for r in retain[: len(questions)]]
packing = F.plan_packing([2 * retain_rows], 200, prefix=0, shards=mesh.shape["data"], micro_batches=1)
state = F.create_state(checkpoint.params, recipe)
for number in range(rounds):
    uniform_BL2 = F.row_uniforms(prompts.keys_Q, 0, number, samples, length)[:, :length]
    tokens_QnL, lengths_Qn = map(np.asarray, sample(state.params, prompts, uniform_BL2))
    answers_Qn = [[text.read(t[:n].tolist()) for t, n in zip(*row)] for row in zip(tokens_QnL, lengths_Qn)]
    rewards_Qn = np.array([[reward(o, a) for a in answers] for o, answers in zip(originals, answers_Qn)])
    kept = [training_row(text, q, a[r.argmax()], 200, F.FORGET) for q, a, r in zip(questions, answers_Qn, rewards_Qn)]
    state, metrics = step(state, F.put_batch(F.pack(kept + retain_rows, packing, mesh.shape["data"]), mesh))
    print(f"round {number}: mean reward {rewards_Qn.mean():.3f}, loss {float(metrics['loss']):.3f}")
