"""TOFU's metrics of one checkpoint, complete: its splits in, the rows of an official evaluation log out (`logs.make_log`)."""

import functools
from typing import Any

import jax
import numpy as np
import optax

from pmc_jax import losses, parallel
from pmc_jax.errors import UserError
from pmc_jax.evaluate import logs, membership, metrics
from pmc_jax.evaluate.likelihood import SHORTEST, TokenScores, token_scores
from pmc_jax.generate import Generator
from pmc_jax.models import Decoder
from pmc_jax.packing import Batch, Packing, Row, pack
from pmc_jax.prompts import training_row
from pmc_jax.questions import Rows, check_rows, has_split, load_split
from pmc_jax.update import put_batch

NO_LIMIT = 2**30  # tokens of a scored row: answers are not cut


def load_sets(data: Any) -> dict[str, Rows]:
    """{log name: rows} of the sets that the data has: forget, retain, ra (real authors), wf (world facts) with wrong answers, and holdout."""
    splits = {
        "forget": f"{data.forget}_perturbed",
        "retain": "retain_perturbed",
        "ra": "real_authors_perturbed",
        "wf": "world_facts_perturbed",
        "holdout": data.forget.replace("forget", "holdout"),
    }
    own = {"forget": data.forget_file, "retain": data.retain_file}
    found = {}
    for name, split in splits.items():
        if not own.get(name) and split != data.forget and has_split(data.path, split):
            found[name] = check_rows(load_split(data.path, split), f"{data.path} {split}", ("question", "answer"))
    return found


def texts_to_score(name: str, rows: Rows) -> dict[str, list[list[str]]]:
    """{log name: answers of each row}: the right answer, the paraphrased one, and the wrong ones, where the rows have them."""
    found = {f"{name}_Q_A_Prob": [[r["answer"]] for r in rows]}
    if all(r.get("paraphrased_answer") for r in rows):
        found[f"{name}_Q_A_PARA_Prob"] = [[r["paraphrased_answer"]] for r in rows]
    if all(r.get("perturbed_answer") for r in rows):
        found[f"{name}_Q_A_PERT_Prob"] = [list(r["perturbed_answer"]) for r in rows]
    return found


def score_sets(generator: Generator, sets: dict[str, Rows]) -> dict[str, list[list[TokenScores]]]:
    """{log name: [row][answer]} of all answers of all sets, in one scoring pass."""
    wanted = {key: (rows, answers) for name, rows in sets.items() for key, answers in texts_to_score(name, rows).items()}
    flat = [
        training_row(generator.text, row["question"], answer, NO_LIMIT, group=1)
        for rows, answers in wanted.values()
        for row, of_row in zip(rows, answers)
        for answer in of_row
    ]
    scores = iter(token_scores(generator.checkpoint.model, generator.params, flat))
    return {key: [[next(scores) for _ in of_row] for of_row in answers] for key, (_, answers) in wanted.items()}


def mean_losses(scores: list[list[TokenScores]]) -> np.ndarray:
    """-log p a token of every answer, float64 [N], or [N, K] where a row has several answers; NaN for an answer without tokens."""
    found_NK = np.array([[-np.mean(s.log_probs, dtype=np.float64) if len(s.log_probs) else np.nan for s in of_row] for of_row in scores])
    return found_NK[:, 0] if found_NK.shape[1] == 1 else found_NK


def tokens_of(scores: list[list[TokenScores]], field: str) -> tuple[np.ndarray, np.ndarray]:
    """One field at each token of the rows' first answers, [N, T], and their lengths [N]. The end token is left out, as in open-unlearning."""
    return metrics.padded([getattr(of_row[0], field) for of_row in scores], leave_out=1)


@functools.partial(jax.jit, static_argnames="model")
def gradient_norm(model: Decoder, params: Any, batch: Batch) -> jax.Array:
    """Norm over all parameters of the gradient of one example's mean loss."""

    def mean_loss(params):
        values_SA = losses.batch_losses(model, params, batch, 0)
        return losses.group_losses(values_SA, batch.group_MSA[0], batch.counts_2)[0]

    return optax.global_norm(jax.grad(mean_loss)(params))


def gradient_norms(model: Decoder, params: Any, rows: list[Row]) -> np.ndarray:
    """gradient_norm of every row, float64 [N]; rows are padded to powers of two."""
    mesh, found = parallel.mesh_of(params), []
    for row in rows:
        length = max(SHORTEST, 2 ** (len(row.tokens) - 1).bit_length())
        batch = pack([row], Packing(0, length, 1, length), mesh.shape["data"])
        found.append(gradient_norm(model, params, put_batch(batch, mesh)))
    return np.array(jax.device_get(found), np.float64)


def attacks(
    generator: Generator, sets: dict[str, Rows], scores: dict[str, list[list[TokenScores]]], reference: dict[str, np.ndarray] | None
) -> dict[str, dict[str, Any]]:
    """{attack: {"forget": rows, "holdout": rows}} of the membership attacks. reference: the retain model's mean losses on the two sets."""
    found: dict[str, dict[str, Any]] = {}
    for side in ("forget", "holdout"):
        of_side, rows = scores[f"{side}_Q_A_Prob"], sets[side]
        examples = [training_row(generator.text, r["question"], r["answer"], NO_LIMIT, group=1) for r in rows]
        attacked = membership.scores(
            mean_losses(of_side),
            [r["answer"] for r in rows],
            *(tokens_of(of_side, field)[0] for field in ("log_probs", "means", "variances")),
            tokens_of(of_side, "log_probs")[1],
            None if reference is None else reference[side],
            gradient_norms(generator.checkpoint.model, generator.params, examples),
        )
        for name, values in attacked.items():
            found.setdefault(name, {})[side] = values
    return found


def answer_rows(generator: Generator, sets: dict[str, Rows], known: dict[str, str], on_progress: Any) -> dict[str, list[dict[str, Any]]]:
    """The ROUGE rows of the four sets. known: greedy answers by question that are there already."""
    asked = {name: [r["question"] for r in rows] for name, rows in sets.items() if name != "holdout"}
    missing = list(dict.fromkeys(q for questions in asked.values() for q in questions if q not in known))
    known = known | {q: samples[0] for q, samples in zip(missing, generator.answers(missing, on_progress))}
    return {
        f"{name}_Q_A_ROUGE": logs.rouge_rows(questions, [r["answer"] for r in sets[name]], [known[q] for q in questions])
        for name, questions in asked.items()
    }


def evaluate_tofu(
    generator: Generator,
    sets: dict[str, Rows],
    scores: dict[str, list[list[TokenScores]]],
    known: dict[str, str],
    reference: dict[str, np.ndarray] | None = None,
    on_progress: Any = None,
) -> dict[str, Any]:
    """The rows of a TOFU evaluation log, for `logs.make_log`.

    generator: greedy, one sample. sets: from `load_sets`. scores: from `score_sets`. known: greedy answers by question from an earlier pass.
    reference: {"forget", "holdout"}: mean losses of a model that never saw the forget set, for the reference attack.
    """
    if "forget" not in sets:
        raise UserError("TOFU's metrics need the split of the forget rows with wrong answers, as forget10_perturbed")
    found: dict[str, Any] = {n: logs.probability_rows(mean_losses(s)) for n, s in scores.items() if not n.startswith("holdout")}
    hits = tokens_of(scores["forget_Q_A_Prob"], "hits")
    found["extraction_strength"] = logs.score_rows(metrics.extraction_strength(*hits))
    found["exact_memorization"] = logs.score_rows(metrics.exact_memorisation(*hits))
    found |= answer_rows(generator, sets, known, on_progress)
    if "holdout" in sets:
        found |= attacks(generator, sets, scores, reference)
    return found


def reference_losses(scores: dict[str, list[list[TokenScores]]]) -> dict[str, np.ndarray]:
    """What the reference attack compares with: the mean losses of the retain model, from its scores of forget and holdout rows."""
    return {side: mean_losses(scores[f"{side}_Q_A_Prob"]) for side in ("forget", "holdout")}
