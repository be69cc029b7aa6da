"""TOFU's metrics of one checkpoint, complete: its splits in, the rows of an official evaluation log out
(`logs.make_log`).
"""

from typing import Any

import numpy as np

from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows, check_rows, has_split, load_split
from pmc_jax.errors import UserError
from pmc_jax.evaluate import log_rows, logs, membership, metrics
from pmc_jax.evaluate.gradients import gradient_norms
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.likelihood import TokenScores, token_scores
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track

NO_LIMIT = 2**30  # tokens of a scored row: answers are not cut
Scores = dict[str, list[list[TokenScores]]]  # {log name: [row][answer]}


def load_sets(data: Any) -> dict[str, Rows]:
    """{log name: rows} of the sets that the data has: forget, retain, ra (real authors), wf (world facts) with wrong
    answers, and holdout.

    Nothing is asked of data.path where both files are the user's own; to a forget file of one's own TOFU's rows are no
    holdout.
    """
    if data.forget_file and data.retain_file:
        return {}
    splits = {
        "forget": f"{data.forget}_perturbed",
        "retain": "retain_perturbed",
        "ra": "real_authors_perturbed",
        "wf": "world_facts_perturbed",
        "holdout": data.forget.replace("forget", "holdout"),
    }
    own = {"forget": data.forget_file, "holdout": data.forget_file, "retain": data.retain_file}
    found = {}
    for name, split in splits.items():
        if not own.get(name) and split != data.forget and has_split(data.path, split):
            where = f"{data.path} {split}"
            found[name] = check_wrong(check_rows(load_split(data.path, split), where, ("question", "answer")), where)
    return found


def check_wrong(rows: Rows, where: str) -> Rows:
    """The same rows, or a UserError: where the first has wrong answers, all need as many."""
    counts = [len(r.get("perturbed_answer") or []) for r in rows]
    other = next((i for i, count in enumerate(counts) if count != counts[0]), None)
    if other is not None:
        raise UserError(
            f"{where}, row {other + 1}: 'perturbed_answer' has {counts[other]} wrong answers, that of row 1 has "
            f"{counts[0]}"
        )
    return rows


def texts_to_score(name: str, rows: Rows) -> dict[str, list[list[str]]]:
    """{log name: answers of each row}: the right answer, the paraphrased one, and the wrong ones, where the rows have
    them.
    """
    found = {f"{name}_Q_A_Prob": [[r["answer"]] for r in rows]}
    if all(r.get("paraphrased_answer") for r in rows):
        found[f"{name}_Q_A_PARA_Prob"] = [[r["paraphrased_answer"]] for r in rows]
    if all(r.get("perturbed_answer") for r in rows):
        found[f"{name}_Q_A_PERT_Prob"] = [list(r["perturbed_answer"]) for r in rows]
    return found


def score_sets(generator: Sampler, sets: dict[str, Rows], what: str = "likelihoods") -> Scores:
    """The scores of all answers of all sets, in one scoring pass; an answer that stands in several sets is scored once.
    what: its progress line.
    """
    wanted = {
        key: (rows, answers) for name, rows in sets.items() for key, answers in texts_to_score(name, rows).items()
    }
    pairs = [
        (row["question"], answer)
        for rows, answers in wanted.values()
        for row, of_row in zip(rows, answers)
        for answer in of_row
    ]
    distinct = list(dict.fromkeys(pairs))
    examples = [training_row(generator.text, question, answer, NO_LIMIT, group=FORGET) for question, answer in distinct]
    with track(what, len(examples)) as advance:
        scores = dict(zip(distinct, token_scores(generator.checkpoint.model, generator.params, examples, advance)))
    found = iter(scores[pair] for pair in pairs)
    return {key: [[next(found) for _ in of_row] for of_row in answers] for key, (_, answers) in wanted.items()}


def mean_losses(scores: list[list[TokenScores]]) -> np.ndarray:
    """-log p a token of every answer, float64 [N], or [N, K] where the rows have K answers each; NaN for an answer
    without tokens.
    """
    losses = membership.loss(*metrics.padded([s.log_probs for of_row in scores for s in of_row]))
    return losses if len(losses) == len(scores) else losses.reshape(len(scores), -1)


def tokens_of(scores: list[list[TokenScores]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """{field: its values at each token of the rows' first answers, [N, T]}, and their lengths [N]; without the end
    token, as in open-unlearning.
    """
    fields = {
        name: metrics.padded([getattr(of_row[0], name) for of_row in scores], leave_out=1)
        for name in TokenScores._fields
    }
    return {name: values_NT for name, (values_NT, _) in fields.items()}, fields["log_probs"][1]


def likelihood_rows(sets: dict[str, Rows], scores: Scores) -> dict[str, Any]:
    """The log's rows of all metrics that follow from likelihoods: probabilities, extraction strength
    (open-unlearning's, with its floor of 1/n, as others read it), exact memorisation, and where there are holdout rows
    the attacks by loss, zlib, min-k and min-k++.
    """
    found: dict[str, Any] = {
        name: log_rows.probability_rows(mean_losses(s))
        for name, s in scores.items()
        if name.partition("_")[0] in logs.SETS
    }
    fields, lengths_N = tokens_of(scores["forget_Q_A_Prob"])
    found["extraction_strength"] = log_rows.score_rows(
        metrics.extraction_strength(fields["hits"], lengths_N, compat=True)
    )
    found["exact_memorization"] = log_rows.score_rows(metrics.exact_memorisation(fields["hits"], lengths_N))
    for side in logs.SIDES if "holdout" in sets else ():
        fields, lengths_N = tokens_of(scores[f"{side}_Q_A_Prob"])
        texts, losses_N = [r["answer"] for r in sets[side]], mean_losses(scores[f"{side}_Q_A_Prob"])
        attacked = membership.scores(
            losses_N, texts, fields["log_probs"], fields["means"], fields["variances"], lengths_N
        )
        for name, values_N in attacked.items():
            found.setdefault(name, {})[side] = log_rows.jsonable(values_N)
    return found


def strict_extraction(scores: Scores) -> list[float]:
    """Extraction strength of each forget row, 0 where its last token is missed."""
    fields, lengths_N = tokens_of(scores["forget_Q_A_Prob"])
    return metrics.extraction_strength(fields["hits"], lengths_N).tolist()


def gradient_rows(generator: Sampler, sets: dict[str, Rows]) -> dict[str, Any]:
    """The log's rows of the gradient-norm attack."""

    def norms(side: str) -> list[float]:
        examples = [
            training_row(generator.text, r["question"], r["answer"], NO_LIMIT, group=FORGET) for r in sets[side]
        ]
        with track(f"gradients, {side}", len(examples)) as advance:
            return log_rows.jsonable(gradient_norms(generator.checkpoint.model, generator.params, examples, advance))

    return {"mia_gradnorm": {side: norms(side) for side in logs.SIDES}}


def reference_rows(rows: dict[str, Any], retain_log: dict[str, Any]) -> dict[str, Any]:
    """The log's rows of the reference attack, from the losses on both sides of the model (its rows) and of the retain
    model (its log); {} where the two are not of as many rows.
    """
    found = {}
    for side in logs.SIDES:
        ours, theirs = (
            rows["mia_loss"][side],
            [row and row["score"] for row in retain_log["mia_loss"][side]["value_by_index"].values()],
        )
        if len(ours) != len(theirs):
            return {}
        found[side] = log_rows.jsonable(
            membership.loss_by_reference(*(np.array(losses, np.float64) for losses in (ours, theirs)))
        )
    return {"mia_reference": found}


def answer_rows(generator: Sampler, sets: dict[str, Rows], known: dict[str, str]) -> dict[str, Any]:
    """The log's ROUGE rows of the four sets. known: greedy answers by question from an earlier pass."""
    scored = {name: rows for name, rows in sets.items() if name in logs.SETS}
    missing = {r["question"]: r["answer"] for rows in scored.values() for r in rows if r["question"] not in known}
    known = known | dict(
        zip(missing, greedy_answers(generator, list(missing), list(missing.values()), "TOFU, answers"))
    )

    def rouge(rows: Rows) -> dict[str, Any]:
        questions, truths = ([r[key] for r in rows] for key in ("question", "answer"))
        return log_rows.rouge_rows(questions, truths, [known[q] for q in questions])

    return {f"{name}_Q_A_ROUGE": rouge(rows) for name, rows in scored.items()}
