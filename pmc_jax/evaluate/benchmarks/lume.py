"""LUME: three tasks in two forms, and the scores of SemEval-2025's task 4 (Ramakrishna et al., arXiv 2502.15097).

The preset `lume` names the columns of its files and reads prompts as its authors do: the text itself, without a
template.
"""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows, check_rows, has_split, load_forget, load_retain, load_split
from pmc_jax.evaluate import lume, membership
from pmc_jax.evaluate.benchmark import Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.benchmarks.choices import MMLU_LETTERS
from pmc_jax.evaluate.benchmarks.quality import ANSWERS, answers_of
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.lines import Line, View, mean_line
from pmc_jax.evaluate.raw_text import document_losses

DOCUMENTS = {"member": "mia_data/member", "nonmember": "mia_data/nonmember"}
NO_DOCUMENTS = "the data has no mia_data/member.jsonl and nonmember.jsonl: documents that were trained on, and others"


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """{side: all rows}, and {"member", "nonmember": documents} where the data has both."""
    data = config.data
    sets = {lume.FORGET: load_forget(data), lume.RETAIN: load_retain(data)}
    for side, rows in sets.items():
        source = f"lume, {side} data"
        lume.check_lume(check_rows(rows, source, ("question", "answer")), source)
    if not (data.forget_file and data.retain_file) and all(has_split(data.path, s) for s in DOCUMENTS.values()):
        for name, split in DOCUMENTS.items():
            sets[name] = check_rows(load_split(data.path, split), f"{data.path} {split}", ("document",))
    return sets


def sets_of(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark."""
    return setup.data[LUME.name]


def measure_answers(setup: Setup) -> dict[str, list[str]]:
    """{side: the greedy answer to each row}; those of `quality` are not generated again."""
    known = {row["question"]: row["answer"] for row in answers_of(setup)}
    sides = {side: sets_of(setup)[side] for side in lume.SIDES}
    missing = {r["question"]: r["answer"] for rows in sides.values() for r in rows if r["question"] not in known}
    known |= dict(zip(missing, greedy_answers(setup.sampler, list(missing), list(missing.values()), "LUME, answers")))
    return {side: [known[row["question"]] for row in rows] for side, rows in sides.items()}


def no_documents(setup: Setup) -> str | None:
    """Why there is no membership score."""
    return None if DOCUMENTS.keys() <= sets_of(setup).keys() else NO_DOCUMENTS


def measure_documents(setup: Setup) -> dict[str, list[float]]:
    """{"member", "nonmember": mean -log p of each document's tokens}."""
    losses = {}
    for name in DOCUMENTS:
        documents = [row["document"] for row in sets_of(setup)[name]]
        nll_N, tokens_N = document_losses(setup.sampler, documents, f"LUME, {name} documents")
        losses[name] = (nll_N / tokens_N.clip(1)).tolist()
    return losses


LUME_ANSWERS = Measurement("lume_answers", measure_answers)
LUME_DOCUMENTS = Measurement("lume_documents", measure_documents, absent=no_documents)


def lume_result(setup: Setup) -> dict[str, Any]:
    """{"cells": `lume.summarise_cells`, "task_aggregate", "membership", "final": {"value", "reason" why not}}."""
    answers, losses = setup.finding(LUME_ANSWERS.name), setup.finding(LUME_DOCUMENTS.name)
    scores = {side: lume.cell_scores(sets_of(setup)[side], answers[side]) for side in lume.SIDES}
    cells = lume.summarise_cells(scores)
    result = {"cells": cells, "task_aggregate": lume.task_aggregate(cells), "membership": membership_of(losses)}
    return result | {"final": final_of(result, setup.finding(MMLU_LETTERS.name))}


def final_of(result: dict[str, Any], mmlu: dict[str, Any]) -> dict[str, Any]:
    """The final score, or why there is none. mmlu: the finding of MMLU_LETTERS."""
    aggregate, attack = result["task_aggregate"], result["membership"]
    reasons = [] if aggregate["cells"] == len(lume.CELLS) else ["needs rows of all three tasks"]
    reasons += [source["reason"] for source in (attack, mmlu) if "reason" in source]
    if reasons:
        return {"value": None, "reason": "; ".join(reasons)}
    return {"value": lume.final_score(aggregate["value"], attack["value"], mmlu["mmlu"]["mean"])}


def membership_of(losses: dict[str, Any]) -> dict[str, Any]:
    """The membership score with its AUC, or why there is none. losses: the finding of LUME_DOCUMENTS."""
    if "reason" in losses:
        return {"value": None, "reason": losses["reason"]}
    auc = membership.auc(losses["member"], losses["nonmember"])
    return {"value": lume.membership_score(auc), "auc": auc, "rows": sum(map(len, losses.values()))}


def lume_lines(result: dict[str, Any]) -> list[Line]:
    """The twelve cells and the scores made of them."""
    measures = {lume.COMPLETION: "ROUGE-L recall", lume.ANSWER: "exact match"}
    lines = []
    for task, form, side in lume.CELLS:
        better = "lower" if side == lume.FORGET else "higher"
        note = "" if (cell := result["cells"][f"{task} {form} {side}"])["rows"] else "the data has no such rows"
        lines.append(mean_line(f"{task} {form}, {side}", cell, hint=f"{measures[form]}, {better} is better", note=note))
    aggregate, attack = result["task_aggregate"], result["membership"]
    note = "" if aggregate["cells"] == len(lume.CELLS) else f"of {aggregate['cells']} of the 12 values only"
    lines.append(Line("Task aggregate", aggregate["value"], hint="harmonic mean, higher is better", note=note))
    note = attack.get("reason") or f"AUC {attack['auc']:.3f}"
    lines.append(Line("Membership score", attack["value"], rows=attack.get("rows"), hint="1 = no trace", note=note))
    final = result["final"]
    hint = "mean of the two and MMLU’s accuracy"
    lines.append(Line("Final score", final["value"], hint=hint, note=final.get("reason", "")))
    return lines


VIEW = View(
    "LUME",
    lume_lines,
    "Greedy answers: completions by ROUGE-L recall, questions by exact match. The task aggregate takes 1 - x of the "
    "forget side, and is 0 where one of its values is.",
)
NEEDED = (ANSWERS, LUME_ANSWERS, LUME_DOCUMENTS, MMLU_LETTERS)
LUME = Benchmark("lume", load_sets, (Part("lume", VIEW, NEEDED, lume_result),))
