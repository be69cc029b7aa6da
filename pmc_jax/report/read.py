"""A run's folder -> what the report needs of it."""

from pathlib import Path
from typing import Any, NamedTuple

from pmc_jax.errors import UserError
from pmc_jax.evaluate import views
from pmc_jax.evaluate.lines import Table, table, tables_of
from pmc_jax.evaluate.neighbours import neighbours
from pmc_jax.evaluate.recall import CONTENT, ROUGE
from pmc_jax.tracking.files import read_json, read_lines
from pmc_jax.tracking.workdir import Workdir

FORGET = ("forget", "forget_paraphrased")  # sets of what is to be forgotten
REDACTED = "[redacted]"
ANSWER = {"set", "question", "answer", "truth", "rouge_l_recall"}


class Run(NamedTuple):
    """One run as its folder holds it.

    Attributes:
        path: the folder.
        name: short, different for each run of a page.
        frozen: config.json.
        result: result.json; {} while unfinished.
        before: evaluation summary of the original model, {} where absent.
        now: evaluation summary of the model now, {} where absent.
        answers: {"before" or "now": rows}.
        rounds: one dict a round.
        kept: {question: the answers it was trained on, oldest first}.
        tables: {key: table} of all results.
        score: the key of an answer's score that unlearn quality and utility are made of.
    """

    path: Path
    name: str
    frozen: dict[str, Any]
    result: dict[str, Any]
    before: dict[str, Any]
    now: dict[str, Any]
    answers: dict[str, list[dict[str, Any]]]
    rounds: list[dict[str, Any]]
    kept: dict[str, list[dict[str, Any]]]
    tables: dict[str, Table]
    score: str = ROUGE


def read_runs(paths: list[Path], redact: bool = False) -> list[Run]:
    """All runs of a page. redact: without the answers to forget questions."""
    if len({p.resolve() for p in paths}) < len(paths):
        raise UserError("report: a workdir is given twice")
    return [read_run(path, name, redact) for path, name in zip(paths, names(paths))]


def names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; two parts at least, as demo/unlearned says more than
    unlearned.
    """
    parts = [p.resolve().parts[1:] for p in paths]
    depth = 2
    while len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def read_run(path: Path, name: str, redact: bool = False) -> Run:
    """One run; UserError for a folder that holds none, or nothing to report yet."""
    frozen = Workdir(str(path)).frozen() if path.is_dir() else None
    if frozen is None:
        raise UserError(f"{path}: {'holds no run of pmc-jax' if path.is_dir() else 'no such folder'}{inside(path)}")
    if frozen["verb"] not in ("unlearn", "evaluate"):
        raise UserError(f"{path}: holds a run of {frozen['verb']!r}; report takes workdirs of unlearn or evaluate")
    result = read_json(path / "result.json") or {}
    before = result.get("before") or (read_json(path / "before.json") or {}).get("summary") or {}
    rounds = read_rounds(path / "metrics.jsonl")
    if not (result or before or rounds):
        raise UserError(f"{path}: this run has not measured anything yet; run it on, then report")
    now = "after" if frozen["verb"] == "unlearn" else "model"
    answers = {
        stage: read_answers(path / "answers" / f"{file}.jsonl") for stage, file in (("before", "before"), ("now", now))
    }
    kept = kept_answers(path, [r["round"] for r in rounds])
    score = (result.get(now) or before).get("score", ROUGE)
    tables = read_tables(result, answers, score)
    if redact or frozen["settings"].get("log.redact"):
        answers, kept = redacted(answers), {}
    return Run(path, name, frozen, result, before, result.get(now) or {}, answers, rounds, kept, tables, score)


def redacted(answers: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Evaluated answers without what was answered, or is true, where the question is to be forgotten."""
    hidden = {"answer": REDACTED, "truth": REDACTED}
    return {stage: [row | hidden if row["set"] in FORGET else row for row in rows] for stage, rows in answers.items()}


def read_rounds(file: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl about rounds, each with its speed and what an evaluation during the run found."""
    lines = read_lines(file)
    evaluated = {
        row["round"]: {key: row[key] for key in ("unlearn_quality", "utility")}
        | {"forget_content_recall": row.get(CONTENT, {}).get("forget", {}).get("mean")}
        for row in lines
        if row.get("kind") == "evaluation"
    }
    rounds = [row for row in lines if row.get("kind") == "round"]
    return [row | row.get("speed", {}) | evaluated.get(row["round"], {}) for row in rounds]


def read_tables(result: dict[str, Any], answers: dict[str, list[dict[str, Any]]], score: str) -> dict[str, Table]:
    """The tables of a result, and neighbouring knowledge from the answers, where the result does not have it."""
    tables = tables_of(result, views.VIEWS)
    if "neighbours" not in tables and (neighbouring := near_and_far(answers, score)):
        tables["neighbours"] = table(views.NEIGHBOURS, neighbouring)
    return tables


def near_and_far(answers: dict[str, list[dict[str, Any]]], score: str) -> dict[str, Any]:
    """Neighbouring knowledge now, and its change where the same questions were answered before; {} without answers."""
    recalls = {
        stage: {row["question"]: row[score] for row in rows if row["set"] == "retain"}
        for stage, rows in answers.items()
    }
    retain, forget = list(recalls["now"]), [row["question"] for row in answers["now"] if row["set"] == "forget"]
    if not retain or not forget:
        return {}
    same = recalls["before"].keys() == recalls["now"].keys()
    original = [recalls["before"][question] for question in retain] if same else None
    return neighbours(forget, retain, list(recalls["now"].values()), original)


def inside(path: Path) -> str:
    """The runs in a folder's folders, as the demo's, for an error message."""
    runs = [str(file.parent) for file in sorted(path.glob("*/config.json")) if (file.parent / "answers").exists()]
    return f"; did you mean {' or '.join(runs)}?" if runs else "; report takes workdirs of unlearn or evaluate"


def read_answers(file: Path) -> list[dict[str, Any]]:
    """Evaluated answers; [] when there is no file."""
    rows = read_lines(file)
    for number, row in enumerate(rows, 1):
        if not (isinstance(row, dict) and row.keys() >= ANSWER):
            raise UserError(
                f"{file}, row {number}: is no evaluated answer; every row needs {', '.join(sorted(ANSWER))}"
            )
    return rows


def kept_answers(path: Path, rounds: list[int]) -> dict[str, list[dict[str, Any]]]:
    """{question: [{round, answer, score}]}: what its training answer was replaced by, round after round."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for number in rounds:
        for row in read_lines(path / "samples" / f"round_{number:05d}.jsonl"):
            if "prefix" in row:  # an answer of which a part was given
                continue
            step = {"round": number, "answer": row["samples"][row["chosen"]], "score": row["scores"][row["chosen"]]}
            steps = kept.setdefault(row["question"], [])
            # A pick that scored worse than the stored answer was not stored.
            if step["score"] == row["stored_score"] and (not steps or steps[-1]["answer"] != step["answer"]):
                steps.append(step)
    return kept
