"""All that is random in the answers: streams of uniform numbers, drawn on the host, so that nothing is compiled."""

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
    shape = len(keys_Q), num_samples, round_up(max_new_tokens, CHUNK), 2
    uniform_QnL2 = np.empty(shape, np.float32)
    # As an array of words a seed is read in half the time; each of the numbers is one word.
    words = np.array((ANSWERS, seed % 2**32, round_index, 0, 0), np.uint32)
    for q, sample in np.ndindex(shape[:2]):
        words[3:] = keys_Q[q], sample
        np.random.Generator(np.random.PCG64(words)).random(out=uniform_QnL2[q, sample], dtype=np.float32)
    return uniform_QnL2.reshape(-1, *shape[2:])
