"""Multiple choice by the letter against a plain loop in torch, on a drawn model."""

import numpy as np
import pytest

from pmc_jax.config import default
from pmc_jax.evaluate import choices
from pmc_jax.sampling.generate import greedy_sampler

pytest.importorskip("torch")

from reference import load_ours, load_torch, save_drawn_llama, torch

pytestmark = pytest.mark.parity


def test_letters_are_as_likely_as_in_torch(tokenizer, tmp_path):
    """Questions of 2 to 4 choices and of 10 to 150 tokens; the accuracy of 60 of them."""
    save_drawn_llama(tmp_path, tokenizer)
    rng, words = np.random.default_rng(0), "the author wrote a novel about rivers and cities in winter".split()
    rows = []
    for number in range(60):
        count = 2 + number % 3
        texts = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(count)]
        question = " ".join(rng.choice(words, rng.integers(3, 40))) + "?"
        rows.append({"question": question, "choices": texts, "answer": int(rng.integers(count))})

    asked = choices.read_all(rows, "drawn")
    ours = choices.choice_scores(greedy_sampler(load_ours(tmp_path), default()), asked, "letters")
    model, hits = load_torch(tmp_path), []
    for row, found in zip(rows, ours, strict=True):
        lines = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"])]
        prompt = "\n".join([row["question"], *lines]) + "\nAnswer:"
        start, wanted = len(tokenizer(prompt)["input_ids"]), []
        for letter in "ABCD"[: len(lines)]:
            ids = torch.tensor([tokenizer(f"{prompt} {letter}")["input_ids"]])
            with torch.no_grad():
                log_p = model(ids).logits[0].double().log_softmax(-1)
            wanted.append(sum(float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
        hits.append(max(range(len(wanted)), key=wanted.__getitem__) == row["answer"])
    assert choices.accuracy(asked, ours)["mean"] == pytest.approx(np.mean(hits))
    assert 0.1 < np.mean(hits) < 0.6, "an untrained model guesses"
