"""What lm-evaluation-harness is told against a plain loop in torch, on a drawn model."""

import numpy as np
import pytest

from pmc_jax.config import default
from pmc_jax.evaluate import harness
from pmc_jax.sampling.generate import greedy_sampler

pytest.importorskip("torch")

from reference import load_ours, load_torch, save_drawn_llama, torch

pytestmark = pytest.mark.parity


def test_likelihoods_are_torchs(tokenizer, tmp_path):
    """60 pairs and 12 whole texts of 1 to 60 words, the latter also in windows."""
    save_drawn_llama(tmp_path, tokenizer)
    sampler, model = greedy_sampler(load_ours(tmp_path), default()), load_torch(tmp_path)
    rng, words = np.random.default_rng(0), "the author wrote a novel about rivers and cities in winter".split()

    def drawn(longest):
        return " ".join(rng.choice(words, rng.integers(1, longest)))

    def log_p(tokens, start):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, :-1].double()
        labels = torch.tensor(tokens[1:])
        picked = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
        return float(picked[start - 1 :].sum()), bool((logits.argmax(-1) == labels)[start - 1 :].all())

    pairs = [(drawn(30), f" {drawn(6)}") for _ in range(60)]
    for (context, continuation), (value, greedy) in zip(pairs, harness.log_likelihoods(sampler, pairs), strict=True):
        start = len(tokenizer(context)["input_ids"])
        wanted = log_p(tokenizer(context + continuation)["input_ids"], start)
        assert value == pytest.approx(wanted[0], rel=1e-5, abs=1e-4) and greedy == wanted[1]

    texts, first = [drawn(60) for _ in range(12)], harness.before_all(sampler.text)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for own, value in zip(tokens, harness.rolling_log_likelihoods(sampler, texts), strict=True):
        assert value == pytest.approx(log_p([first, *own], 1)[0], rel=1e-5, abs=1e-4)
