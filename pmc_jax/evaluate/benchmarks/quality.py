"""PMC's own evaluation: unlearn quality and utility, from greedy answers to five sets (arXiv 2507.04219)."""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data import questions
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.evaluate import views
from pmc_jax.evaluate.answers import evaluate
from pmc_jax.evaluate.benchmark import RETAIN_MODEL, Benchmark, Measurement, Part, Setup
from pmc_jax.tracking.workdir import read_lines, write_lines

ANSWERS_FILE = "answers/model.jsonl"


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """The forget set, its paraphrases and the sets that must stay, those that the data has."""
    forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
    return questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)


def measure_answers(setup: Setup) -> dict[str, Any]:
    """The summary of the greedy answers; the answers are written to answers/model.jsonl."""
    evaluation = evaluate(setup.sampler, sets_of(setup))
    write_lines(setup.work.file(ANSWERS_FILE), evaluation.answers)
    return evaluation.summary()


def measure_retain_answers(setup: Setup) -> dict[str, Any]:
    """The greedy answers of the retain model, which never saw the forget set, to the forget questions."""
    questions = [row["question"] for row in sets_of(setup)["forget"]]
    return {"answers": [samples[0] for samples in setup.sampler.answers(questions)]}


def sets_of(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark, which other benchmarks measure on too."""
    return setup.data[QUALITY.name]


def answers_of(setup: Setup, name: str | None = None) -> list[dict[str, Any]]:
    """The answers to one set, or to all, as the measurement `answers` wrote them."""
    rows = multihost.broadcast_from_primary(lambda: read_lines(setup.work.path / ANSWERS_FILE))
    return [row for row in rows if name in (None, row["set"])]


ANSWERS = Measurement("answers", measure_answers)
RETAIN_ANSWERS = Measurement("retain_model", measure_retain_answers, RETAIN_MODEL)
QUALITY = Benchmark("quality", load_sets, (Part("model", views.SUMMARY, (ANSWERS,)),))
