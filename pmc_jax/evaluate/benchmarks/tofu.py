"""TOFU (Maini et al., arXiv 2401.06121): its metrics by the names of the official log, and the least likely option.

tofu_log.json is written in the official format, and retain_log.json where there is a retain model.
"""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows, check_rows, has_split, load_split
from pmc_jax.errors import UserError
from pmc_jax.evaluate import attacks, log_format, log_rows, logs, metrics, tofu_rows, views
from pmc_jax.evaluate.benchmark import RETAIN_MODEL, Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.benchmarks.quality import ANSWERS, RETAIN_ANSWERS, answers_of, sets_of
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.summary import summarise


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """TOFU's splits that the data has.

    Nothing is asked of data.path where both files are the user's own. TOFU's rows are no holdout to a forget file of
    the user's own.

    Returns:
        {name in the log: rows}: forget, retain, ra (real authors), wf (world facts), holdout.
    """
    data = config.data
    if data.forget_file and data.retain_file:
        return {}
    splits = {
        "forget": f"{data.forget}_perturbed",
        "retain": "retain_perturbed",
        "ra": "real_authors_perturbed",
        "wf": "world_facts_perturbed",
        "holdout": data.forget.replace("forget", "holdout"),
    }
    own = {"forget": data.forget_file or data.cut, "holdout": data.forget_file or data.cut, "retain": data.retain_file}
    sets = {}
    for name, split in splits.items():
        if not own.get(name) and split != data.forget and has_split(data.path, split):
            title = f"{data.path} {split}"
            sets[name] = check_wrong(check_rows(load_split(data.path, split), title, ("question", "answer")), title)
    return sets


def check_wrong(rows: Rows, title: str) -> Rows:
    """The same rows, or a UserError that begins with `title`: all need as many wrong answers as the first."""
    counts = [len(r.get("perturbed_answer") or []) for r in rows]
    other = next((i for i, count in enumerate(counts) if count != counts[0]), None)
    if other is not None:
        raise UserError(
            f"{title}, row {other + 1}: 'perturbed_answer' has {counts[other]} wrong answers, that of row 1 has "
            f"{counts[0]}"
        )
    return rows


def no_tofu(setup: Setup) -> str | None:
    """Why TOFU's metrics cannot be computed; None where they can."""
    if "forget" in tofu_sets(setup):
        return None
    data = setup.config.data
    which = "the forget file is your own, and" if data.forget_file else "the data has no such split:"
    return f"{which} TOFU's metrics need {data.forget}_perturbed, the forget rows with paraphrased and wrong answers"


def tofu_sets(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark."""
    return setup.data[TOFU.name]


def sides(setup: Setup) -> dict[str, Rows]:
    """The forget and the holdout rows, between which membership attacks tell."""
    return {side: rows for side, rows in tofu_sets(setup).items() if side in log_format.SIDES}


def measure_likelihoods(setup: Setup) -> dict[str, Any]:
    """Rows of the log that follow from likelihoods, and each forget row's extraction strength without a floor."""
    scores = setup.scores()
    rows = tofu_rows.likelihood_rows(tofu_sets(setup), scores)
    return {"rows": rows, "strict_extraction": tofu_rows.strict_extraction(scores)}


def measure_gradients(setup: Setup) -> dict[str, Any]:
    """Rows of the log of the gradient-norm attack; none without holdout rows."""
    sets = tofu_sets(setup)
    return {"rows": tofu_rows.gradient_rows(setup.sampler, sets) if "holdout" in sets else {}}


def measure_answers(setup: Setup) -> dict[str, Any]:
    """Rows of the log that follow from greedy answers; those of `quality` are not generated again."""
    known = {row["question"]: row["answer"] for row in answers_of(setup)}
    return {"rows": tofu_rows.answer_rows(setup.sampler, tofu_sets(setup), known)}


def measure_retain_model(setup: Setup) -> dict[str, Any]:
    """Rows of the retain model's log: of the forget and the holdout set."""
    sets = sides(setup)
    questions = [row["question"] for row in sets_of(setup)["forget"]]
    known = dict(zip(questions, setup.finding(RETAIN_ANSWERS.name)["answers"]))
    rows = tofu_rows.likelihood_rows(sets, setup.scores())
    return {"rows": rows | tofu_rows.answer_rows(setup.sampler, sets, known)}


LIKELIHOODS = Measurement("likelihoods", measure_likelihoods, texts=tofu_sets)
GRADIENTS = Measurement("gradients", measure_gradients)
TOFU_ANSWERS = Measurement("tofu_answers", measure_answers)
RETAIN_ROWS = Measurement("retain_tofu", measure_retain_model, RETAIN_MODEL, texts=sides)


def tofu_result(setup: Setup) -> dict[str, Any]:
    """The summary of the model's log, which is written to tofu_log.json, that of the retain model beside it."""
    retain_rows = setup.finding(RETAIN_ROWS.name).get("rows")
    retain_log = setup.retain_log
    if retain_rows:
        retain_log = logs.write_log(setup.work.file("retain_log.json"), retain_rows)
    rows: dict[str, Any] = {}
    for measurement in (LIKELIHOODS, GRADIENTS, TOFU_ANSWERS):
        rows |= setup.finding(measurement.name)["rows"]
    if retain_log and "mia_loss" in rows and "mia_loss" in retain_log:
        rows |= tofu_rows.reference_rows(rows, retain_log)
    log = logs.write_log(setup.work.file("tofu_log.json"), rows, retain_log)
    missing = {
        name: {"value": None, "rows": 0, "reason": reason}
        for name, reason in absent_metrics(setup, log, retain_log).items()
    }
    strict = setup.finding(LIKELIHOODS.name)["strict_extraction"]
    return summarise(log, retain_log) | missing | {"extraction_strength_strict": strict_summary(strict)}


def strict_summary(strength_N: list[float]) -> dict[str, Any]:
    """Extraction strength without open-unlearning's floor, as `summary.summarise` has a metric."""
    strict = mean_with_interval(strength_N)
    note = "0 where the last token is missed; the log's floor is 1/n"
    interval = {"interval": (strict.low, strict.high)} if strict.low is not None else {}
    return {"value": strict.mean, "rows": strict.rows, "note": note} | interval


def absent_metrics(setup: Setup, log: dict[str, Any], retain_log: dict[str, Any] | None) -> dict[str, str]:
    """{metric: reason} of TOFU's metrics that the log lacks, since the data or the settings lack what they need."""
    holdout = (
        f"the data has no {setup.config.data.forget.replace('forget', 'holdout')}: rows like the forget "
        "ones that no model has seen"
    )
    needed = "the forget rows lack paraphrased or wrong answers (paraphrased_answer, perturbed_answer)"
    reasons = dict.fromkeys((*log_format.ATTACKS, "privleak"), holdout)
    reasons |= {log_rows.RATIOS["forget"]: needed, "forget_quality": needed}
    if "holdout" in tofu_sets(setup):
        reasons["mia_reference"] = (
            "the retain log has no attacks, or on other numbers of rows" if retain_log else metrics.NO_RETAIN
        )
    reasons["model_utility"] = f"needs {', '.join(name for name in log_format.UTILITY if name not in log)}"
    return {name: reason for name, reason in reasons.items() if name not in log}


def no_option(setup: Setup) -> str | None:
    """Why there is no multiple choice."""
    if no_tofu(setup):
        return no_tofu(setup)
    complete = all(row.get("perturbed_answer") for row in tofu_sets(setup)["forget"])
    return None if complete else "the forget rows have no wrong answers (perturbed_answer)"


def option_result(setup: Setup) -> dict[str, Any]:
    """The attack by the least likely option of a multiple choice, from the likelihoods of right and wrong answers."""
    rows = setup.finding(LIKELIHOODS.name)["rows"]
    right, wrong = ([row["avg_loss"] for row in rows[name]] for name in ("forget_Q_A_Prob", "forget_Q_A_PERT_Prob"))
    return attacks.least_likely_option(right, wrong)


TOFU = Benchmark(
    "tofu",
    load_sets,
    (
        Part(
            "tofu",
            views.TOFU,
            (ANSWERS, LIKELIHOODS, GRADIENTS, TOFU_ANSWERS, RETAIN_ANSWERS, RETAIN_ROWS),
            tofu_result,
            no_tofu,
        ),
        Part("least_likely_option", views.LEAST_LIKELY_OPTION, (LIKELIHOODS,), option_result, no_option),
    ),
)
