"""Texts that the model reads as they stand, without a template: documents, and prompts with a continuation."""

import numpy as np

from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.prompts import Text
from pmc_jax.evaluate.likelihood import tracked_scores
from pmc_jax.sampling.sampler import Sampler


def raw_tokens(text: Text, string: str) -> list[int]:
    """Token ids of a text: with what the tokenizer puts in front, without an end token that it appends."""
    ids = list(text.tokenizer(string)["input_ids"])
    while len(ids) > 1 and ids[-1] in text.end_tokens:
        ids.pop()
    return ids


def document_row(text: Text, document: str) -> Row:
    """A row whose labels are all tokens of a document but the first, which nothing comes before."""
    return Row(raw_tokens(text, document), 1, FORGET)


def document_losses(sampler: Sampler, documents: list[str], progress: str) -> tuple[np.ndarray, np.ndarray]:
    """How unlikely a model finds documents.

    Args:
        sampler: of the model; how it samples does not matter.
        documents: N texts.
        progress: begins the progress line.

    Returns:
        (sum of -log p of each document's tokens but the first, nats, float64 [N]; how many these are, int [N]).
    """
    rows = [document_row(sampler.text, document) for document in documents]
    scores = tracked_scores(sampler, rows, progress)
    nll_N = np.array([-np.sum(s.log_probs, dtype=np.float64) for s in scores], np.float64)
    return nll_N, np.array([len(s.log_probs) for s in scores], int)


def continuation_row(text: Text, prompt: str, continuation: str) -> Row:
    """A row whose labels are the tokens of a continuation, cut from those of the whole text.

    A continuation begins with its space: tokenised alone, some tokenizers would put a second one in front.
    """
    before, whole = raw_tokens(text, prompt), raw_tokens(text, prompt + continuation)
    return Row(whole, min(len(before), len(whole) - 1), FORGET)


def continuation_scores(
    sampler: Sampler, prompts: list[str], continuations: list[list[str]], progress: str
) -> list[np.ndarray]:
    """log p of each continuation after its prompt, nats.

    Args:
        sampler: of the model; how it samples does not matter.
        prompts: N texts.
        continuations: those of each prompt.
        progress: begins the progress line.

    Returns:
        N arrays, float64, one value for each continuation: the sum over its tokens.
    """
    pairs = [(prompt, own) for prompt, owns in zip(prompts, continuations, strict=True) for own in owns]
    rows = [continuation_row(sampler.text, *pair) for pair in pairs]
    scores = tracked_scores(sampler, rows, progress)
    sums = iter([float(np.sum(s.log_probs, dtype=np.float64)) for s in scores])
    return [np.array([next(sums) for _ in owns], np.float64) for owns in continuations]
