"""The likelihoods of sets of rows: right answers, paraphrased ones and wrong ones, each text scored once."""

import numpy as np

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows
from pmc_jax.evaluate import membership, metrics
from pmc_jax.evaluate.likelihood import NO_LIMIT, TokenScores, tracked_scores
from pmc_jax.sampling.sampler import Sampler

Scores = dict[str, list[list[TokenScores]]]  # {"SET_Q_A_Prob": [row][answer]}


def texts_to_score(name: str, rows: Rows) -> dict[str, list[list[str]]]:
    """The answers of one set that are scored.

    Args:
        name: the set's name.
        rows: with question and answer; with paraphrased_answer and perturbed_answer (wrong answers) or without.

    Returns:
        {"NAME_Q_A_Prob", "NAME_Q_A_PARA_Prob", "NAME_Q_A_PERT_Prob": answers of each row}, those that all rows have.
    """
    texts = {f"{name}_Q_A_Prob": [[r["answer"]] for r in rows]}
    if all(r.get("paraphrased_answer") for r in rows):
        texts[f"{name}_Q_A_PARA_Prob"] = [[r["paraphrased_answer"]] for r in rows]
    if all(r.get("perturbed_answer") for r in rows):
        texts[f"{name}_Q_A_PERT_Prob"] = [list(r["perturbed_answer"]) for r in rows]
    return texts


def score_sets(sampler: Sampler, sets: dict[str, Rows], progress: str = "likelihoods") -> Scores:
    """Score all answers of all sets in one pass. An answer that stands in several sets is scored once.

    Args:
        sampler: of the model; its sampling parameters do not matter.
        sets: {name: rows}, as `texts_to_score` takes them.
        progress: begins the progress lines.

    Returns:
        {name of `texts_to_score`: [row][answer] -> TokenScores}.
    """
    wanted = {
        key: (rows, answers) for name, rows in sets.items() for key, answers in texts_to_score(name, rows).items()
    }
    pairs = [
        (row["question"], answer)
        for rows, answers in wanted.values()
        for row, row_answers in zip(rows, answers)
        for answer in row_answers
    ]
    distinct = list(dict.fromkeys(pairs))
    examples = [training_row(sampler.text, question, answer, NO_LIMIT, group=FORGET) for question, answer in distinct]
    scores = dict(zip(distinct, tracked_scores(sampler, examples, progress)))
    scores_in_order = iter(scores[pair] for pair in pairs)
    return {
        key: [[next(scores_in_order) for _ in row_answers] for row_answers in answers]
        for key, (_, answers) in wanted.items()
    }


def mean_losses(scores: list[list[TokenScores]]) -> np.ndarray:
    """-log p a token of every answer, nats.

    Returns:
        float64 [N], or [N, K] where the rows have K answers each; NaN for an answer without tokens.
    """
    losses = membership.loss(*metrics.padded([s.log_probs for row_scores in scores for s in row_scores]))
    return losses if len(losses) == len(scores) else losses.reshape(len(scores), -1)


def first_answer_fields(scores: list[list[TokenScores]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The scores of each row's first answer as padded arrays, without the end token, as in open-unlearning.

    Returns:
        ({field of TokenScores: float64 [N, T]}, lengths [N]).
    """
    fields = {
        name: metrics.padded([getattr(row_scores[0], name) for row_scores in scores], leave_out=1)
        for name in TokenScores._fields
    }
    return {name: values_NT for name, (values_NT, _) in fields.items()}, fields["log_probs"][1]
