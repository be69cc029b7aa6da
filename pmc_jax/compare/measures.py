"""What a comparison tells of a run: numbers from its result.json, its metrics.jsonl and its evaluation."""

from pathlib import Path
from typing import Any, NamedTuple

from pmc_jax.tracking.files import read_json, read_lines

Numbers = dict[str, float | None]


class Measure(NamedTuple):
    """A column of the table.

    Attributes:
        title: its heading.
        digits: after the point.
        meaning: how it is read.
    """

    title: str
    digits: int
    meaning: str


# Of every run.
QUALITY = {
    "unlearn_quality": Measure("unlearn quality", 1, "0 to 100, higher is better"),
    "utility": Measure("utility", 1, "0 to 100, higher is better"),
    "content_recall": Measure("content recall", 3, "of the facts in the forget answers, lower is better"),
    "training_seconds": Measure("training, s", 1, "sampling, scoring and updates, without compilation"),
    "total_seconds": Measure("in all, s", 1, "with loading, compilation, evaluation and saving"),
}
# Of runs that are evaluated from time to time (evaluate.every).
COURSE = {
    "drop": Measure("deepest drop", 1, "points of utility lost at the worst evaluation during the run"),
    "recovery": Measure("updates to recover", 0, "after which utility stays above the floor; a dash: it never does"),
}
# Of the chosen grid points.
ROBUSTNESS = {
    "leak_greedy": Measure("leak, greedy", 3, "recall of the forget answers, lower is better"),
    "leak_sampled": Measure("leak, sampled", 3, "worst of the samples, lower is better"),
    "leak_prefilled": Measure("leak, prefilled", 3, "worst of the samples after a prefilled start, lower is better"),
    "least_likely": Measure("least likely", 3, "how often the secret is the least likely option; at chance is best"),
    "drift_forget": Measure("drift, forget words", 4, "change of their probability in unrelated text, 0 is best"),
    "drift_other": Measure("drift, other words", 4, "the same of other words"),
    "relearned": Measure("relearned", 3, "recall of held-back answers after the attack, lower is better"),
    "extraction": Measure("extraction strength", 3, "share of an answer that its beginning gives away"),
    "auc_loss": Measure("AUC, loss", 3, "membership attack; as a model that never saw the data is best"),
    "auc_min_k": Measure("AUC, min-k", 3, "the same"),
}
MEASURES = QUALITY | COURSE | ROBUSTNESS
TRAINING = ("sample", "score", "update")  # phases of training
# measure -> where the result.json of `evaluate` has it
PLACES = {
    "leak_sampled": ("leakage", "sampled", "measures", "worst", "mean"),
    "leak_prefilled": ("leakage", "prefilled", "measures", "worst", "mean"),
    "least_likely": ("least_likely_option", "mean"),
    "drift_forget": ("drift", "forget_words", "mean"),
    "drift_other": ("drift", "other_words", "mean"),
    "extraction": ("tofu", "extraction_strength_strict", "value"),
    "auc_loss": ("tofu", "mia_loss", "value"),
    "auc_min_k": ("tofu", "mia_min_k", "value"),
}


class Measured(NamedTuple):
    """What is known of one run.

    Attributes:
        numbers: by the keys of MEASURES.
        start: unlearn quality and utility of the model that it began with.
        course: after some updates, unlearn quality and utility; empty where they were not evaluated.
        relearning: (updates, recall of the answers held back) of the attack; empty where it was not made.
        chance: of the least likely option; None where it was not measured.
    """

    numbers: Numbers
    start: Numbers
    course: list[dict[str, float]] = []  # noqa: RUF012  never changed
    relearning: list[tuple[int, float]] = []  # noqa: RUF012
    chance: float | None = None


def inside(value: Any, path: tuple[str, ...]) -> Any:
    """What lies under some keys, one inside the other; None where a key is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def read_run(folder: Path, evaluation: Path, floor: float) -> Measured | None:
    """What a finished run measured; None where it is not finished.

    Args:
        folder: of the run.
        evaluation: of the evaluation of its result, which need not be there.
        floor: percent of the start's utility, for the updates to recover.
    """
    result = read_json(folder / "result.json")
    if result is None:
        return None
    before, after, seconds = result["before"], result["after"], result["seconds"]
    start = {key: before[key] for key in ("unlearn_quality", "utility")}
    course = read_course(folder, {key: after[key] for key in start})
    numbers = {key: after[key] for key in start} | {
        "content_recall": inside(after, ("content_recall", "forget", "mean")),
        "leak_greedy": after["forget"],
        "training_seconds": sum(seconds[phase] for phase in TRAINING),
        "total_seconds": seconds["total"],
    }
    more = of_evaluation(read_json(evaluation / "result.json") or {})
    return Measured(numbers | fall(course, start["utility"], floor) | more.numbers, start, course, *more[3:])


def of_evaluation(result: dict[str, Any]) -> Measured:
    """What an evaluation measured beyond answers; {} has nothing."""
    looks = inside(result, ("relearning", "model", "looks")) or []
    curve = [(look["updates"], look["held_back"]["mean"]) for look in looks]
    numbers = {key: inside(result, path) for key, path in PLACES.items()}
    numbers["relearned"] = curve[-1][1] if curve else None
    model = result.get("model", {})
    known = {key: model.get(key) for key in ("unlearn_quality", "utility")}
    return Measured(numbers, known, [], curve, inside(result, ("least_likely_option", "chance")))


def of_model(result: dict[str, Any]) -> Measured:
    """The same of a model that no run of the comparison made, its answers included."""
    measured, model = of_evaluation(result), result["model"]
    answers = {"leak_greedy": model["forget"], "content_recall": inside(model, ("content_recall", "forget", "mean"))}
    return measured._replace(numbers=measured.numbers | measured.start | answers)


def read_course(folder: Path, last: Numbers) -> list[dict[str, float]]:
    """What the evaluations during a run found, each with the updates that were done by then, and `last` at its end.

    Empty where there were none.
    """
    course, updates = [], 0
    for row in read_lines(folder / "metrics.jsonl"):
        updates += row["kind"] == "update"
        if row["kind"] == "evaluation":
            course.append({"updates": updates} | {key: row[key] for key in last})
    return [*course, {"updates": updates} | last] if course else []


def fall(course: list[dict[str, float]], start: float, floor: float) -> Numbers:
    """How far utility fell during a run, and after how many updates it stayed above the floor.

    Args:
        course: evaluations during the run, the last one at its end.
        start: utility of the start.
        floor: percent of it.
    """
    if not course:
        return {}
    below = [i for i, look in enumerate(course) if look["utility"] < floor / 100 * start]
    back = below[-1] + 1 if below else 0
    recovery = (course[back]["updates"] if below else 0) if back < len(course) else None
    return {"drop": start - min(look["utility"] for look in course), "recovery": recovery}
