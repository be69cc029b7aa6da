"""What one model says of TOFU's splits, as the rows of an official evaluation log (`logs.make_log`)."""

from typing import Any

import numpy as np

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows
from pmc_jax.evaluate import log_format, log_rows, membership, metrics
from pmc_jax.evaluate.gradients import gradient_norms
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.likelihood import NO_LIMIT
from pmc_jax.evaluate.scoring import Scores, first_answer_fields, mean_losses
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track


def likelihood_rows(sets: dict[str, Rows], scores: Scores) -> dict[str, Any]:
    """The log's rows of all metrics that follow from likelihoods.

    These are the probabilities, extraction strength (open-unlearning's, with its floor of 1/n, as others read it),
    exact memorisation, and where there are holdout rows the attacks by loss, zlib, min-k and min-k++.

    Args:
        sets: TOFU's sets by their names in the log; "forget" is among them.
        scores: of these sets, from `scoring.score_sets`.

    Returns:
        {metric: rows}, for `logs.make_log`.
    """
    rows: dict[str, Any] = {
        name: log_rows.probability_rows(mean_losses(set_scores))
        for name, set_scores in scores.items()
        if name.partition("_")[0] in log_rows.SETS
    }
    fields, lengths_N = first_answer_fields(scores["forget_Q_A_Prob"])
    strength_N = metrics.extraction_strength(fields["hits"], lengths_N, compat=True)
    rows["extraction_strength"] = log_rows.score_rows(strength_N)
    rows["exact_memorization"] = log_rows.score_rows(metrics.exact_memorisation(fields["hits"], lengths_N))
    for side in log_format.SIDES if "holdout" in sets else ():
        fields, lengths_N = first_answer_fields(scores[f"{side}_Q_A_Prob"])
        texts, losses_N = [r["answer"] for r in sets[side]], mean_losses(scores[f"{side}_Q_A_Prob"])
        attack_scores = membership.scores(
            losses_N, texts, fields["log_probs"], fields["means"], fields["variances"], lengths_N
        )
        for name, values_N in attack_scores.items():
            rows.setdefault(name, {})[side] = log_rows.jsonable(values_N)
    return rows


def strict_extraction(scores: Scores) -> list[float]:
    """Extraction strength of each forget row, 0 where its last token is missed."""
    fields, lengths_N = first_answer_fields(scores["forget_Q_A_Prob"])
    return metrics.extraction_strength(fields["hits"], lengths_N).tolist()


def gradient_rows(sampler: Sampler, sets: dict[str, Rows]) -> dict[str, Any]:
    """The log's rows of the gradient-norm attack; sets: with "forget" and "holdout"."""

    def norms(side: str) -> list[float]:
        examples = [training_row(sampler.text, r["question"], r["answer"], NO_LIMIT, group=FORGET) for r in sets[side]]
        with track(f"gradients, {side}", len(examples)) as advance:
            return log_rows.jsonable(gradient_norms(sampler.checkpoint.model, sampler.params, examples, advance))

    return {"mia_gradnorm": {side: norms(side) for side in log_format.SIDES}}


def reference_rows(rows: dict[str, Any], retain_log: dict[str, Any]) -> dict[str, Any]:
    """The log's rows of the reference attack: the model's losses less those of the retain model.

    Args:
        rows: of the model, with "mia_loss".
        retain_log: the log of the retain model, with "mia_loss".

    Returns:
        {"mia_reference": {side: scores}}; {} where the two are not of as many rows.
    """
    scores = {}
    for side in log_format.SIDES:
        losses = rows["mia_loss"][side]
        retain_losses = [row and row["score"] for row in retain_log["mia_loss"][side]["value_by_index"].values()]
        if len(losses) != len(retain_losses):
            return {}
        losses_N, retain_losses_N = np.array(losses, np.float64), np.array(retain_losses, np.float64)
        scores[side] = log_rows.jsonable(membership.loss_by_reference(losses_N, retain_losses_N))
    return {"mia_reference": scores}


def answer_rows(sampler: Sampler, sets: dict[str, Rows], known: dict[str, str]) -> dict[str, Any]:
    """The log's ROUGE rows of the four sets.

    Args:
        sampler: greedy, one sample.
        sets: TOFU's sets by their names in the log; others are left out.
        known: greedy answers by question from an earlier pass; they are not generated again.

    Returns:
        {"SET_Q_A_ROUGE": rows}.
    """
    scored = {name: rows for name, rows in sets.items() if name in log_rows.SETS}
    missing = {r["question"]: r["answer"] for rows in scored.values() for r in rows if r["question"] not in known}
    answers = greedy_answers(sampler, list(missing), list(missing.values()), "TOFU, answers")
    known = known | dict(zip(missing, answers))

    def rouge(rows: Rows) -> list[dict[str, Any]]:
        questions, truths = ([r[key] for r in rows] for key in ("question", "answer"))
        return log_rows.rouge_rows(questions, truths, [known[q] for q in questions])

    return {f"{name}_Q_A_ROUGE": rouge(rows) for name, rows in scored.items()}
