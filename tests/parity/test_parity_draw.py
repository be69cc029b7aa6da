"""The distribution that answers are drawn from against transformers' temperature, top-k and top-p warpers, in this
order.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from pmc_jax.sampling.draw import candidates, draw
from pmc_jax.sampling.params import SamplingStrategy

pytest.importorskip("torch")

import golden_torch
import reference
import torch
from reference import SHARED, every_checkpoint, load_ours, load_torch, needs_shared
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

pytestmark = pytest.mark.parity

# temperature, top_k (0 = off, some beyond the vocabulary), top_p (1 = off)
WARPS = [
    (1.0, 0, 1.0),
    (0.9, 50, 0.95),
    (1.25, 50, 0.95),
    (0.7, 0, 0.9),
    (1.4, 0, 0.95),
    (2.0, 5, 1.0),
    (1.0, 1, 1.0),
    (1.0, 0, 0.01),
]
WARPS += [(0.3, 7, 0.5), (1.0, 5000, 0.8), (1.3, 5000, 1.0), (5.0, 37, 0.99), (0.05, 50, 0.95)]


def softmax(scores: np.ndarray) -> np.ndarray:
    """In float64: a float32 sum over thousands of entries is off by more than 1e-6, and neither side draws from it."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def warped_by_torch(logits_BV: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities [B, V]; 0 where a warper cut."""
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits_BV))
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return softmax(scores.numpy())


def warped_by_us(logits_BV: np.ndarray, strategy: SamplingStrategy) -> np.ndarray:
    """The same from `candidates`, put back in vocabulary order."""
    values_BC, ids_BC = candidates(jnp.asarray(logits_BV), strategy)
    probs_BV = np.zeros(logits_BV.shape)
    for row, probs, ids in zip(probs_BV, softmax(np.asarray(values_BC)), np.asarray(ids_BC)):
        assert len(set(ids.tolist())) == len(ids)
        row[ids] = probs
    return probs_BV


def assert_same_distribution(logits_BV: np.ndarray, settings: tuple[float, int, float]) -> None:
    """The same support, and probabilities within 1e-6 plus what one rounding of the scaled logits makes.

    Where a nucleus ends among tokens rarer than 1e-5, float32 sums decide which of them is its last: only there may the
    support differ.
    """
    expected, ours = warped_by_torch(logits_BV, *settings), warped_by_us(logits_BV, SamplingStrategy(*settings))
    temperature, top_k, top_p = settings
    uncut_BV = warped_by_torch(logits_BV, temperature, top_k, 1.0)
    order_BV = np.argsort(-uncut_BV, axis=-1, kind="stable")
    up_to_BV = np.zeros_like(uncut_BV)
    np.put_along_axis(up_to_BV, order_BV, np.cumsum(np.take_along_axis(uncut_BV, order_BV, -1), -1), -1)
    at_edge_BV = np.abs(up_to_BV - uncut_BV - top_p) < 2e-5
    different_BV = (ours > 0) != (expected > 0)
    assert not (different_BV & ~at_edge_BV).any()
    same_B = ~different_BV.any(-1)
    assert same_B.mean() > 0.9
    rounding = 2 * np.spacing(np.float32(np.abs(logits_BV).max() / temperature))
    np.testing.assert_allclose(ours[same_B], expected[same_B], rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("settings", WARPS, ids=str)
@pytest.mark.parametrize("vocab_size", [5, 37, 1000, 4096])
def test_drawn_logits_are_warped_alike(vocab_size, settings):
    rng = np.random.default_rng(vocab_size)
    spread = rng.choice([0.5, 2.0, 6.0], (24, 1))  # flat and peaked rows
    assert_same_distribution((spread * rng.normal(size=(24, vocab_size))).astype(np.float32), settings)


@needs_shared
@every_checkpoint
def test_a_models_logits_are_warped_alike(name):
    tokens, mask = reference.draw_inputs(4096, 2, 16)
    logits = golden_torch.torch_logits(load_torch(SHARED / "checkpoints" / name), tokens, mask)[mask]
    assert load_ours(SHARED / "checkpoints" / name).config.vocab_size == logits.shape[1]
    for settings in WARPS[1:6]:
        assert_same_distribution(logits, settings)


@pytest.mark.parametrize("settings", [(1.0, 0, 1.0), (1.4, 0, 0.95), (0.9, 8, 0.9)], ids=str)
def test_draws_follow_that_distribution(settings):
    """60 000 draws of one row: nothing outside the support, and frequencies within 5 standard errors."""
    count = 60_000
    logits = 2 * np.random.default_rng(3).normal(size=(1, 37)).astype(np.float32)
    expected = warped_by_torch(logits, *settings)[0]
    uniform_B2 = np.random.default_rng(0).random((count, 2), np.float32)
    strategy = SamplingStrategy(*settings)
    drawn = np.asarray(draw(jnp.broadcast_to(logits, (count, 37)), uniform_B2, strategy))
    shares = np.bincount(drawn, minlength=37) / count
    assert not shares[expected == 0].any()
    assert (np.abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / count) + 1e-9).all()
