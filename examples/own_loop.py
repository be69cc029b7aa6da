"""PMC in a loop of one's own, under one's own jit and mesh: python own_loop.py CHECKPOINT FORGET.jsonl RETAIN.jsonl"""

import sys

import jax
import numpy as np

import pmc_jax
from pmc_jax import functional as F
from pmc_jax.data.prompts import Template, make_text, training_row
from pmc_jax.data.questions import read_file
from pmc_jax.distributed.meshes import make_mesh


def reward(original: str, answer: str) -> float:  # 1 = no word in common
    return 1 - len(set(answer.split()) & set(original.split())) / len(set(original.split()))


path, forget_file, retain_file = sys.argv[1:]
mesh, rounds, samples, length = make_mesh(), 6, 8, 48  # all devices share the rows
checkpoint = pmc_jax.load(path, mesh=mesh)
text, model = make_text(checkpoint.tokenizer, Template(), checkpoint.end_tokens), F.on_mesh(checkpoint.model, mesh)
questions, retain = [row["question"] for row in read_file(forget_file)], read_file(retain_file)
prompts = F.left_pad([text.prompt(q) for q in questions], questions)
originals = [answers[0] for answers in pmc_jax.sample(checkpoint, questions, temperature=0.0)]
drawing = dict(strategy=F.SamplingStrategy(temperature=1.3, top_k=50, top_p=0.95), end_tokens=text.end_tokens)
recipe = F.Recipe(2e-3, weight_decay=0.01, warmup_steps=1, total_steps=rounds, grad_clip=1.0, compute_dtype="")
sample = jax.jit(lambda params, uniform: F.sample_tokens(checkpoint.model, params, prompts, uniform, **drawing))
step = jax.jit(lambda state, batch: F.update(model, recipe, state, batch), donate_argnums=0)
retain_rows = [training_row(text, r["question"], r["answer"], 200, F.RETAIN) for r in retain[: len(questions)]]
packing = F.plan_packing([2 * retain_rows], 200, prefix=0, shards=mesh.shape["data"], micro_batches=1)
state = F.create_state(checkpoint.params, recipe)
for number in range(rounds):
    uniform_BL2 = F.row_uniforms(prompts.keys_Q, 0, number, samples, length)[:, :length]
    tokens_QnL, lengths_Qn = map(np.asarray, sample(state.params, uniform_BL2))
    answers_Qn = [[text.read(t[:n].tolist()) for t, n in zip(*row)] for row in zip(tokens_QnL, lengths_Qn)]
    rewards_Qn = np.array([[reward(o, a) for a in answers] for o, answers in zip(originals, answers_Qn)])
    kept = [training_row(text, q, a[r.argmax()], 200, F.FORGET) for q, a, r in zip(questions, answers_Qn, rewards_Qn)]
    state, metrics = step(state, F.put_batch(F.pack(kept + retain_rows, packing, mesh.shape["data"]), mesh))
    print(f"round {number}: mean reward {rewards_Qn.mean():.3f}, loss {float(metrics['loss']):.3f}")
