"""The scoring pass against plain logits, one row at a time."""

import numpy as np
import pytest
from scipy import special

import pmc_jax
from pmc_jax.data.packing import FORGET, Row
from pmc_jax.evaluate.fluency import answer_perplexities, perplexities
from pmc_jax.evaluate.likelihood import TokenScores, token_scores
from pmc_jax.sampling.generate import greedy_sampler


def drawn_rows(seed: int, lengths: list[tuple[int, int]], vocab: int = 500) -> list[Row]:
    """Rows of (prompt, answer) lengths that share their first two tokens."""
    rng = np.random.default_rng(seed)
    return [
        Row([7, 8, *rng.integers(5, vocab, prompt + answer - 2).tolist()], prompt, FORGET) for prompt, answer in lengths
    ]


def one_by_one(checkpoint, row: Row) -> tuple[np.ndarray, ...]:
    """log p, hit, mean and variance of log p at each answer token, from the model's plain logits in float64.

    Padded to a few lengths, since each is a program.
    """
    count, width = len(row.tokens), 256 if len(row.tokens) <= 256 else 2048
    tokens_1T = np.array([row.tokens + [0] * (width - count)])
    logits = np.asarray(pmc_jax.logits(checkpoint, tokens_1T, np.arange(width)[None] < count), np.float64)[
        0, row.start - 1 : count - 1
    ]
    log_p = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    labels = tokens_1T[0, row.start : count]
    mean = np.sum(np.exp(log_p) * log_p, axis=-1)
    variance = np.sum(np.exp(log_p) * (log_p - mean[:, None]) ** 2, axis=-1)
    return log_p[np.arange(len(labels)), labels], np.argmax(log_p, axis=-1) == labels, mean, variance


@pytest.mark.parametrize("which", ["tiny_checkpoint", "tiny_phi"])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_single_rows(which, request, seed):
    """One-token answers, long ones, duplicates and an empty one, in any order."""
    checkpoint, rng = request.getfixturevalue(which), np.random.default_rng(seed)
    lengths = [(int(rng.integers(4, 20)), int(rng.integers(1, 60))) for _ in range(60)] + [(5, 1), (4, 200), (6, 0)]
    rows = drawn_rows(seed, lengths)
    rows += rows[:2]
    for row, scores in zip(rows, token_scores(checkpoint.model, checkpoint.params, rows), strict=True):
        assert all(len(x) == len(row.tokens) - row.start for x in scores)
        if len(row.tokens) > row.start:
            log_p, hits, mean, variance = one_by_one(checkpoint, row)
            np.testing.assert_allclose(scores.log_probs, log_p, atol=1e-4, rtol=1e-5)
            assert scores.hits.tolist() == hits.tolist()
            np.testing.assert_allclose(scores.means, mean, atol=1e-4, rtol=1e-5)
            np.testing.assert_allclose(scores.variances, variance, atol=1e-3, rtol=1e-3)


def test_no_rows_and_a_row_of_2000_tokens(tiny_checkpoint):
    assert token_scores(tiny_checkpoint.model, tiny_checkpoint.params, []) == []
    rows = drawn_rows(3, [(10, 2000), (10, 3)])
    scores = token_scores(tiny_checkpoint.model, tiny_checkpoint.params, rows)
    assert [len(f.log_probs) for f in scores] == [2000, 3]
    np.testing.assert_allclose(scores[0].log_probs, one_by_one(tiny_checkpoint, rows[0])[0], atol=1e-4, rtol=1e-5)


def test_perplexities_are_those_of_plain_logits(tiny_checkpoint, fresh_checkpoint, small, splits):
    """A model finds what it knows by heart likely, the answers of another question less, and one that knows nothing
    finds all about equally unlikely.
    """
    rows = splits["forget20"]
    questions, truths = ([row[key] for row in rows] for key in ("question", "answer"))
    sampler = greedy_sampler(tiny_checkpoint, small())
    own = answer_perplexities(sampler, questions, truths)
    for question, truth, perplexity in zip(questions, truths, own):
        prompt = sampler.text.prompt(question)
        row = Row(prompt + sampler.text.answer(truth), len(prompt), FORGET)
        assert perplexity == pytest.approx(np.exp(-np.mean(one_by_one(tiny_checkpoint, row)[0])), rel=1e-4)
    others = answer_perplexities(sampler, questions, truths[1:] + truths[:1])
    gibberish = answer_perplexities(sampler, questions, ["the the the in in a a of"] * len(rows))
    assert own.max() < 1.5 < np.median(others) < np.median(gibberish)
    unknown = answer_perplexities(greedy_sampler(fresh_checkpoint, small()), questions, truths)
    assert unknown.min() > 100 and unknown.max() < 2000
    assert np.isfinite(answer_perplexities(sampler, questions[:1], [""])).all(), "the end token alone"
    assert np.isnan(perplexities([TokenScores(*np.zeros((4, 0), np.float32))])).all()
