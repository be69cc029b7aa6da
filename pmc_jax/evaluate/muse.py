"""MUSE's metrics (Shi et al., arXiv 2407.06460) from answers and likelihoods; no model.

Two codes measure them, with small differences: `muse` is the authors' own, `open_unlearning` the field's framework.
"""

from typing import NamedTuple

import numpy as np
from rouge_score import tokenize as rouge_tokenize

from pmc_jax.data.questions import Rows
from pmc_jax.evaluate.membership import min_k
from pmc_jax.methods.rouge import rouge_l_f1, rouge_tokens

VERBATIM_TOKENS, ANSWER_TOKENS = 128, 32  # of a continuation, and of an answer
STOPS = ("\n\n", "\nQuestion", "Question:")  # where an answer ends, since the model goes on with questions of its own


class Variant(NamedTuple):
    """What the two codes do differently.

    Attributes:
        stemmed: ROUGE-L counts words stemmed by the Porter stemmer.
        last_token: the likelihood attack looks at the last token of a text too. Open-unlearning leaves the last label
            out, as if it were an end token.
    """

    stemmed: bool
    last_token: bool


MUSE = Variant(stemmed=False, last_token=True)
VARIANTS = {"muse": MUSE, "open_unlearning": Variant(stemmed=True, last_token=False)}


def knowledge_prompt(examples: Rows, question: str) -> str:
    """The prompt of a question behind examples with their answers; it ends in "Answer: "."""
    shown = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in examples)
    return f"{shown}Question: {question}\nAnswer: "


def cut_answer(answer: str) -> str:
    """The answer up to the first of `STOPS`."""
    for stop in STOPS:
        answer = answer.split(stop)[0]
    return answer


def rouge_f1(truth: str, answer: str, variant: Variant = MUSE) -> float:
    """ROUGE-L F1 of one answer, 0..1, as rouge-score gives it with or without its stemmer."""
    tokens = rouge_tokens if variant.stemmed else lambda text: rouge_tokenize.tokenize(text, None)
    return rouge_l_f1(tokens(truth), tokens(answer))


def attack_scores(log_probs: list[np.ndarray], variant: Variant) -> np.ndarray:
    """Min-40% of each text: minus the mean of its unlikeliest tokens, high for one that looks unseen, float64 [N].

    Args:
        log_probs: of each text's tokens but the first, nats.
        variant: of `VARIANTS`.
    """
    kept = [values if variant.last_token else values[:-1] for values in log_probs]
    tokens_N = np.array([len(values) for values in kept], int)
    logp_NT = np.zeros((len(kept), max(tokens_N, default=0)))
    for row, values in zip(logp_NT, kept):
        row[: len(values)] = values
    return min_k(logp_NT, tokens_N)
