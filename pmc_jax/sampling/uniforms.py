"""All that is random in the answers: streams of uniform numbers, drawn on the host, so that nothing is compiled."""

import itertools

import numpy as np

from pmc_jax.data.packing import round_up
from pmc_jax.sampling.decode import CHUNK

ANSWERS = 4  # first word of a numpy seed, after those of methods/pmc.py: the streams never meet


def row_uniforms(keys_Q: np.ndarray, seed: int, round_index: int, num_samples: int, max_new_tokens: int) -> np.ndarray:
    """Two numbers from [0, 1) for each token of the n answers to Q questions.

    Each answer has a stream of its own, keyed by (seed, round, question, sample). A shorter answer takes the first
    numbers of its stream, whatever batch it is decoded in.

    Args:
        keys_Q: uint32, see `Prompts`.
        seed: the run's.
        round_index: another round has other draws.
        num_samples: n, answers to each question.
        max_new_tokens: longest answer, tokens.

    Returns:
        float32 [Q * n, L, 2], question-major, with L >= max_new_tokens.
    """
    numbers = itertools.product(keys_Q.tolist(), range(num_samples))
    streams = (np.random.default_rng((ANSWERS, seed % 2**32, round_index, *number)) for number in numbers)
    return np.stack([stream.random((round_up(max_new_tokens, CHUNK), 2), np.float32) for stream in streams])
