"""PMC's own evaluation: unlearn quality and utility, from greedy answers to five sets (arXiv 2507.04219)."""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data import questions
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.evaluate import views
from pmc_jax.evaluate.answers import evaluate
from pmc_jax.evaluate.benchmark import RETAIN_MODEL, Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.recall import CONTENT, check_truths_seen, greedy_recall, mean_recall
from pmc_jax.methods.passages import load_sides
from pmc_jax.tracking.files import read_lines, write_lines

ANSWERS_FILE = "answers/model.jsonl"


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """The forget set, its paraphrases and the sets that must stay, those that the data has."""
    forget, retain = load_sides(config)
    retain = list(filter(questions.is_answered, retain))
    if not retain:
        raise UserError("the retain data has no answers to measure against; name rows that have them")
    sets = questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)
    check_truths_seen(config.evaluate.score, sets)
    return sets


def measure_answers(setup: Setup) -> dict[str, Any]:
    """The summary of the greedy answers; the answers are written to answers/model.jsonl."""
    evaluation = evaluate(setup.sampler, sets_of(setup), score=setup.config.evaluate.score)
    write_lines(setup.work.file(ANSWERS_FILE), evaluation.answers)
    return evaluation.summary()


def measure_retain_answers(setup: Setup) -> dict[str, Any]:
    """The greedy answers of the retain model, which never saw the forget set, to the forget questions."""
    questions = [row["question"] for row in sets_of(setup)["forget"]]
    return {"answers": [samples[0] for samples in setup.sampler.answers(questions)]}


def quality_result(setup: Setup) -> dict[str, Any]:
    """The summary, and beside it what a model that never saw the forget set scores on it, where there is one."""
    summary = setup.finding(ANSWERS.name)
    answers = never_saw_answers(setup)
    if answers is None:
        return summary
    forget, score = answers_of(setup, "forget"), setup.config.evaluate.score
    questions, truths = ([row[key] for row in forget] for key in ("question", "truth"))
    recalls = {name: mean_recall(greedy_recall(name, questions, truths, answers)) for name in (score, CONTENT)}
    return summary | {"never_saw": {"forget": recalls[score], "content_recall": recalls[CONTENT]}}


def never_saw_answers(setup: Setup) -> list[str] | None:
    """The answers to the forget questions of the retain model, or in its log; None where neither is there, or where the
    log is of other rows.
    """
    if setup.config.evaluate.retain_model:
        return setup.finding(RETAIN_ANSWERS.name)["answers"]
    log = (setup.retain_log or {}).get("forget_Q_A_ROUGE", {}).get("value_by_index", {})
    logged = [[(row or {}).get(key) or "" for row in log.values()] for key in ("ground_truth", "generation")]
    given = [row.get("answer") or "" for row in sets_of(setup)["forget"]]
    # Decoding takes the space before a comma away.
    same = len(given) == len(log) and all("".join(a.split()) == "".join(b.split()) for a, b in zip(given, logged[0]))
    return logged[1] if same else None


def sets_of(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark, which other benchmarks measure on too."""
    return setup.data[QUALITY.name]


def answers_of(setup: Setup, name: str | None = None) -> list[dict[str, Any]]:
    """The answers to one set, or to all, as the measurement `answers` wrote them."""
    rows = multihost.broadcast_from_primary(lambda: read_lines(setup.work.path / ANSWERS_FILE))
    return [row for row in rows if name in (None, row["set"])]


ANSWERS = Measurement("answers", measure_answers)
RETAIN_ANSWERS = Measurement("retain_model", measure_retain_answers, RETAIN_MODEL)
QUALITY = Benchmark("quality", load_sets, (Part("model", views.SUMMARY, (ANSWERS, RETAIN_ANSWERS), quality_result),))
