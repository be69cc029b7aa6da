"""Greedy answers to all of tofu-mini's questions, token for token those of transformers' generate."""

import time

import numpy as np
import pytest

from pmc_jax import config
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad

pytest.importorskip("torch")

import reference
import torch
from reference import SHARED, every_checkpoint, load_ours, load_torch, needs_shared

pytestmark = [pytest.mark.parity, needs_shared]

SPLITS = (("forget10", "question"), ("forget10_perturbed", "paraphrased_question"), ("retain90", "question"))
SPLITS += (("world_facts", "question"), ("real_authors", "question"))
TIE = 1e-4  # two logits closer than this are ranked by float32 rounding


def prompt_ids(tokenizer, question: str) -> list[int]:
    """A question's prompt, straight from transformers."""
    if not tokenizer.chat_template:
        return tokenizer(f"Question: {question}\n")["input_ids"]
    chat = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, date_string="10 Apr 2025", return_dict=False)


def generate(model, prompts: list[list[int]], end: int, max_new_tokens: int) -> list[list[int]]:
    """transformers' greedy answers, up to and with the end token; prompts padded on the left."""
    longest = max(map(len, prompts))
    tokens, mask = (
        torch.zeros(len(prompts), longest, dtype=torch.long),
        torch.zeros(len(prompts), longest, dtype=torch.long),
    )
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :], mask[i, longest - len(prompt) :] = torch.tensor(prompt), 1
    out = model.generate(
        tokens, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=end, eos_token_id=end
    )
    answers = [row.tolist() for row in out[:, longest:]]
    return [a[: a.index(end) + 1] if end in a else a for a in answers]


def gap_at(model, prompt: list[int], ours: list[int], theirs: list[int]) -> float:
    """How far apart torch sees the two tokens where the answers first differ."""
    at = next(i for i in range(max(len(ours), len(theirs))) if ours[i : i + 1] != theirs[i : i + 1])
    assert at < min(len(ours), len(theirs)), "one answer goes on where the other ended"
    with torch.no_grad():
        logits = model(torch.tensor([prompt + theirs[:at]])).logits[0, -1]
    return abs(float(logits[theirs[at]] - logits[ours[at]]))


@every_checkpoint
def test_greedy_answers_are_those_of_generate(name):
    folder = SHARED / "checkpoints" / name
    settings = config.default()
    sampler = greedy_sampler(load_ours(folder), settings)
    questions = [row[field] for split, field in SPLITS for row in reference.read_rows(split)]
    prompts = [sampler.text.prompt(q) for q in questions]
    assert prompts == [prompt_ids(sampler.checkpoint.tokenizer, q) for q in questions]
    assert len(questions) > 600

    start = time.perf_counter()
    ours = [samples[0] for samples in sampler.tokens(left_pad(prompts, questions))]
    middle = time.perf_counter()
    theirs: list[list[int]] = [[]] * len(questions)
    model = load_torch(folder, attention="sdpa")
    order = np.argsort(
        [len(a) for a in ours], kind="stable"
    )  # answers of one length together: torch's batches run to their longest
    (end,) = sampler.text.end_tokens
    for rows in np.array_split(order, 8):
        for i, answer in zip(rows, generate(model, [prompts[i] for i in rows], end, settings.evaluate.max_new_tokens)):
            theirs[i] = answer
    different = [i for i in range(len(questions)) if ours[i] != theirs[i]]
    seconds = f"ours {middle - start:.1f} s, torch {time.perf_counter() - middle:.1f} s"
    print(
        f"{name}: {len(questions)} questions, {sum(map(len, ours))} tokens, {len(different)} answers differ; {seconds}"
    )
    gaps = {questions[i]: gap_at(model, prompts[i], ours[i], theirs[i]) for i in different}
    assert all(gap < TIE for gap in gaps.values()), gaps
    assert len(different) <= 3, gaps
