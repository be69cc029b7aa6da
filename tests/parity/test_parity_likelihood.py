"""Likelihoods and gradient norms of the shared checkpoints against torch."""

import numpy as np
import pytest

from pmc_jax.config import default
from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.evaluate.gradients import gradient_norms
from pmc_jax.evaluate.likelihood import token_scores
from pmc_jax.sampling.generate import greedy_sampler

pytest.importorskip("torch")

import reference
from reference import every_checkpoint, load_ours, load_torch, needs_shared, torch

pytestmark = pytest.mark.parity


@needs_shared
@every_checkpoint
def test_token_scores_and_gradient_norms_are_torchs(name):
    folder = reference.SHARED / "checkpoints" / name
    checkpoint, model = load_ours(folder), load_torch(folder)
    text = greedy_sampler(checkpoint, default()).text
    rows = reference.read_rows("forget10_perturbed")[:8]
    answers = [
        (r["question"], a) for r in rows for a in (r["answer"], r["paraphrased_answer"], r["perturbed_answer"][0])
    ]
    examples = [training_row(text, q, a, 10**6, group=FORGET) for q, a in answers]
    for row, found in zip(examples, token_scores(checkpoint.model, checkpoint.params, examples), strict=True):
        with torch.no_grad():
            log_p = model(torch.tensor([row.tokens])).logits[0, row.start - 1 : -1].double().log_softmax(-1)
        labels = torch.tensor(row.tokens[row.start :])
        picked = log_p[torch.arange(len(labels)), labels].numpy()
        np.testing.assert_allclose(found.log_probs, picked, rtol=1e-5, atol=1e-5)
        assert abs(found.log_probs.mean(dtype=np.float64) - picked.mean()) < 1e-5
        mean = (log_p.exp() * log_p).sum(-1)
        np.testing.assert_allclose(found.means, mean.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            found.variances, (log_p.exp() * (log_p - mean[:, None]) ** 2).sum(-1).numpy(), rtol=1e-3, atol=1e-4
        )
        assert found.hits.tolist() == (log_p.argmax(-1) == labels).tolist()

    norms = gradient_norms(checkpoint.model, checkpoint.params, examples[:6])
    for row, found in zip(examples, norms):
        model.zero_grad()
        logits = model(torch.tensor([row.tokens])).logits[0, row.start - 1 : -1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(row.tokens[row.start :])).backward()
        wanted = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
        assert found == pytest.approx(wanted, rel=1e-3)
