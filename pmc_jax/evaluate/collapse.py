"""PMC's own evaluation: greedy answers on five sets, unlearn quality and utility (pmc.md, "What it reports")."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from pmc_jax.generate import Generator
from pmc_jax.questions import Rows
from pmc_jax.reward import score

SETS = ("forget", "forget_paraphrased", "retain", "world_facts", "real_authors")


def unlearn_quality(recall: dict[str, float | None]) -> float | None:
    """50 * (2 - R(forget) - R(forget paraphrased)), 0..100; from R(forget) alone, 100 * (1 - R), where there are no paraphrases."""
    forget, paraphrased = recall["forget"], recall["forget_paraphrased"]
    return 100 * (1 - forget) if paraphrased is None else 50 * (2 - forget - paraphrased)


def utility(recall: dict[str, float | None]) -> float | None:
    """Mean of R(retain), R(world facts), R(real authors), 0..100; over those sets that were evaluated."""
    known = [recall[name] for name in ("retain", "world_facts", "real_authors") if recall[name] is not None]
    return 100 * float(np.mean(known)) if known else None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """recall: mean ROUGE-L recall by set, None where not evaluated. rows: number of rows by set. answers: one dict a row.

    truth: what the forget answers were measured against: "ground truth", or "original answers" where the forget rows have none.
    """

    recall: dict[str, float | None]
    rows: dict[str, int]
    truth: str
    answers: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """The keys of result.json."""
        quality = {"unlearn_quality": unlearn_quality(self.recall), "utility": utility(self.recall)}
        return {**self.recall, **quality, "rows": self.rows, "forget_truth": self.truth}


def truths(sets: dict[str, Rows], references: list[str] | None) -> tuple[dict[str, list[str]], str]:
    """What each set's answers are held against: the rows' answers; for forget sets without answers, the original model's own (`references`)."""
    found = {name: [row.get("answer") or "" for row in rows] for name, rows in sets.items()}
    if all(found["forget"]):
        return found, "ground truth"
    for name in ("forget", "forget_paraphrased"):
        if name in sets:
            found[name] = references
    return found, "original answers"


def evaluate(generator: Generator, sets: dict[str, Rows], references: list[str] | None = None, on_progress: Callable | None = None) -> Evaluation:
    """Greedy answers to every question of every set in one pass, and their ROUGE-L recall.

    generator: greedy, one sample. sets: from `questions.load_evaluation`. references: the original model's answers to the forget questions;
    None = this is the original model, its own answers now are taken.
    """
    questions = [row["question"] for rows in sets.values() for row in rows]
    flat = [samples[0] for samples in generator.answers(questions, on_progress)]
    answers, at = {}, 0
    for name, rows in sets.items():
        answers[name] = flat[at : at + len(rows)]
        at += len(rows)
    held_against, kind = truths(sets, references if references is not None else answers["forget"])
    recall: dict[str, float | None] = dict.fromkeys(SETS)
    records = []
    for name, rows in sets.items():
        values = score(held_against[name], [[a] for a in answers[name]])[:, 0]
        recall[name] = float(np.mean(values))
        records += [
            {"set": name, "question": row["question"], "answer": answer, "truth": truth, "rouge_l_recall": float(value)}
            for row, answer, truth, value in zip(rows, answers[name], held_against[name], values)
        ]
    return Evaluation(recall, {name: len(rows) for name, rows in sets.items()}, kind, records)
