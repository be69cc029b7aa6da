"""LUME's scores (Ramakrishna et al., arXiv 2502.15097; SemEval-2025 task 4), from answers and likelihoods; no model.

Three tasks (made-up stories, made-up biographies, real biographies), each asked in two forms on two sides, forget and
retain: twelve cells.
"""

import re
from typing import Any

import numpy as np
from scipy import stats

from pmc_jax.data.questions import Rows
from pmc_jax.errors import UserError
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.methods.rouge import rouge_l_recall, rouge_tokens

SIDES = FORGET, RETAIN = "forget", "retain"
TASKS = ("Task1", "Task2", "Task3")
FORMS = COMPLETION, ANSWER = "completion", "answer"
MARKS = {"sc": COMPLETION, "qa": ANSWER}  # what an id ends in, before its number
CELLS = [(task, form, side) for task in TASKS for form in FORMS for side in SIDES]


def form_of(row_id: str) -> str | None:
    """The form in which a row asks, by its id: ...scN is a completion, ...qaN a question; None for any other."""
    mark = re.search(r"(sc|qa)\d+$", row_id)
    return MARKS[mark.group(1)] if mark else None


def check_lume(rows: Rows, source: str) -> Rows:
    """The same rows, or a UserError that names the first whose id or task is none of LUME's."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("id"), str) or form_of(row["id"]) is None:
            raise UserError(f"{source}, row {number}: 'id' is {row.get('id')!r}; LUME's end in sc or qa and a number")
        if row.get("task") not in TASKS:
            raise UserError(f"{source}, row {number}: 'task' is {row.get('task')!r}; LUME's are {', '.join(TASKS)}")
    return rows


def lume_score(form: str, truth: str, answer: str) -> float:
    """How much of the truth an answer gives away, 0..1.

    Args:
        form: of `FORMS`.
        truth: the row's output.
        answer: the model's.

    Returns:
        Completion: ROUGE-L recall, stemmed. Answer: 1 where the two are the same but for case and outer white space.
    """
    if form == COMPLETION:
        return rouge_l_recall(rouge_tokens(truth), rouge_tokens(answer))
    return float(truth.strip().lower() == answer.strip().lower())


def cell_scores(rows: Rows, answers: list[str]) -> dict[tuple[str, str], list[float]]:
    """{(task, form): the score of each row} of one side.

    Args:
        rows: with id, task and answer.
        answers: one to each row.
    """
    scores: dict[tuple[str, str], list[float]] = {}
    for row, answer in zip(rows, answers, strict=True):
        form = form_of(row["id"])
        scores.setdefault((row["task"], form), []).append(lume_score(form, row["answer"], answer))
    return scores


def summarise_cells(scores: dict[str, dict[tuple[str, str], list[float]]]) -> dict[str, dict[str, Any]]:
    """{"TASK FORM SIDE": mean with its interval} of `CELLS`; a cell without rows has the mean None.

    Args:
        scores: {side: `cell_scores`}.
    """
    return {
        f"{task} {form} {side}": mean_with_interval(scores[side].get((task, form), []))._asdict()
        for task, form, side in CELLS
    }


def task_aggregate(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The harmonic mean of the cells, those of the forget side as 1 - x; 0 where one of them is 0.

    Args:
        cells: from `summarise_cells`.

    Returns:
        {"value": 0..1, None without cells; "cells": how many had rows, of 12}.
    """
    means = {name: cell["mean"] for name, cell in cells.items() if cell["mean"] is not None}
    kept = [1 - mean if name.endswith(FORGET) else mean for name, mean in means.items()]
    value = None if not kept else 0.0 if min(kept) <= 0 else float(stats.hmean(kept))
    return {"value": value, "cells": len(kept)}


def membership_score(auc: float) -> float:
    """1 - 2 |AUC - .5|, 0..1: 1 where the loss does not tell documents that were trained on from others."""
    return 1 - 2 * abs(auc - 0.5)


def final_score(aggregate: float, membership: float, mmlu: float) -> float:
    """The mean of task aggregate, membership score and MMLU's accuracy, 0..1, as in the task's leaderboard."""
    return float(np.mean([aggregate, membership, mmlu]))
