"""answers -> scores -> chosen answers: how much of the original answer is left, and which answer is kept."""

import functools
import math

import numpy as np
from rapidfuzz.distance import LCSseq
from rouge_score import tokenize as rouge_tokenize

from pmc_jax.errors import UserError


class CachedStemmer:
    """nltk's Porter stemmer, each word once: stemming is 9/10 of the plain package's time and answers repeat their
    words.
    """

    @functools.cached_property
    def stem(self):
        from nltk.stem import porter

        return functools.lru_cache(maxsize=None)(porter.PorterStemmer().stem)


STEMMER = CachedStemmer()


def rouge_tokens(text: str) -> list[str]:
    """The stemmed tokens that ROUGE counts, by rouge-score's own tokeniser."""
    return rouge_tokenize.tokenize(text, STEMMER)


def overlap(reference: list[str], answer: list[str]) -> int:
    """Length of the longest common subsequence."""
    return int(LCSseq.similarity(reference, answer)) if reference and answer else 0


def rouge_l_recall(reference: list[str], answer: list[str]) -> float:
    """Share of the reference's tokens that the answer holds in order, 0..1; 0 where either is empty (as in
    rouge-score).
    """
    return overlap(reference, answer) / len(reference) if reference else 0.0


def rouge_l_f1(reference: list[str], answer: list[str]) -> float:
    """Harmonic mean of ROUGE-L recall and precision, 0..1."""
    common = overlap(reference, answer)
    return 2 * common / (len(reference) + len(answer)) if common else 0.0


SCORES = {"rouge_l_recall": rouge_l_recall, "rouge_l_f1": rouge_l_f1}


def score(
    references: list[str], answers: list[list[str]], kind: str = "rouge_l_recall", min_words: int = 0
) -> np.ndarray:
    """How much of each reference its answers still hold: 0 nothing, 1 everything. The reward is 1 minus this.

    references: one text a question. answers: [question][sample] texts. kind: "rouge_l_recall" (ROUGE-L recall with
    stemmer, identical to rouge-score) or "rouge_l_f1". min_words: an answer of w < min_words words gets min(1, score +
    exp(-w)), so that saying nothing is no way out. Returns float64 [question, sample]. Raises UserError for an unknown
    kind and for lists that do not fit.
    """
    if kind not in SCORES:
        raise UserError(f"pmc.reward={kind!r}: choose one of {', '.join(SCORES)}")
    if len(references) != len(answers):
        raise UserError(
            f"{len(references)} references but {len(answers)} lists of answers: one list a question is needed"
        )
    one = SCORES[kind]
    scores = []
    for reference, samples in zip(references, answers):
        reference_tokens = rouge_tokens(reference)
        row = [one(reference_tokens, rouge_tokens(answer)) for answer in samples]
        scores.append([penalise_short(s, answer, min_words) for s, answer in zip(row, samples)])
    if len({len(row) for row in scores}) > 1:
        raise UserError("every question needs the same number of answers")
    return np.array(scores, np.float64).reshape(len(scores), -1)


def penalise_short(value: float, answer: str, min_words: int) -> float:
    """The length guard of the published runs: exp(-words) is added below `min_words` words."""
    words = len(answer.split())
    return min(1.0, value + math.exp(-words)) if words < min_words else value


def select(
    scores_QS: np.ndarray, kind: str = "lowest", temperature: float = 1.0, seeds: list[list[int]] | None = None
) -> np.ndarray:
    """Which sample of each question is kept, int [Q].

    kind: "lowest" score (the first of equals), or "bradley_terry": sample i with probability softmax((1 - score_i) /
    temperature).
    seeds: for bradley_terry, one list of ints a question, such as [seed, round, question].
    """
    if kind == "lowest":
        return np.argmin(scores_QS, axis=1)
    if kind != "bradley_terry":
        raise UserError(f"pmc.selection={kind!r}: choose one of lowest, bradley_terry")
    if seeds is None or len(seeds) != len(scores_QS):
        raise UserError(
            f"bradley_terry needs one list of seeds a question: {len(scores_QS)} questions, {len(seeds or [])} lists"
        )
    noise_QS = np.stack([np.random.default_rng(s).gumbel(size=scores_QS.shape[1]) for s in seeds])
    return np.argmax((1 - scores_QS) / temperature + noise_QS, axis=1)
