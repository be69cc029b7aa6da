"""Logits, gradients and greedy answers of four tiny checkpoints against values that transformers computed (see
golden.py); no torch needed.
"""

import functools

import golden
import numpy as np
import pytest

import pmc_jax
from pmc_jax import config
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad

LOGITS, VALUES = golden.load_stored()
every_config = pytest.mark.parametrize("name", golden.CONFIGS)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a golden checkpoint by name, once a module."""
    return functools.cache(
        lambda name: pmc_jax.load(
            golden.save_checkpoint(tmp_path_factory.mktemp(name), name), mesh=golden.package_mesh()
        )
    )


def test_every_config_has_golden_values():
    assert LOGITS.keys() == VALUES.keys() == golden.CONFIGS.keys()


@every_config
def test_logits_are_those_of_transformers(load, name):
    tokens, mask = golden.logit_inputs()
    logits = np.asarray(pmc_jax.logits(load(name), tokens, mask))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[mask], LOGITS[name][mask], rtol=0, atol=1e-4)


@every_config
def test_loss_and_gradients_are_those_of_torch(load, name):
    batch = golden.package_batch(golden.gradient_rows(), length=40, packed_rows=1, labels=32, several=True)
    metrics, gradients = golden.package_gradients(load(name), batch, golden.HYPER)
    expected = VALUES[name]["gradient_norms"]
    assert gradients.keys() == expected.keys()
    for tensor, gradient in gradients.items():
        assert np.linalg.norm(gradient) == pytest.approx(expected[tensor], rel=1e-4), tensor
    assert float(metrics["loss"]) == pytest.approx(VALUES[name]["loss"], rel=1e-5)


@every_config
def test_greedy_answers_are_those_of_generate(load, name):
    assert VALUES[name]["least_gap"] > 1e-3  # no near-ties: the answers are decided
    sampler = greedy_sampler(load(name), config.default()).with_sampling(max_new_tokens=golden.ANSWER_TOKENS)
    prompts = golden.prompts()
    assert [samples[0] for samples in sampler.tokens(left_pad(prompts, [str(p) for p in prompts]))] == VALUES[name][
        "greedy"
    ]
