"""Tasks of lm-evaluation-harness, for those who have it: `evaluate.harness=arc_easy,mmlu`."""

import math
from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows
from pmc_jax.errors import UserError, first_line
from pmc_jax.evaluate.benchmark import Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.harness import harness_model, require_harness
from pmc_jax.evaluate.lines import Line, View
from pmc_jax.settings.setting import names_in

SPREAD = 1.96  # standard errors to either side: the 95 % interval of a normal mean


def load_tasks(config: ConfigDict) -> dict[str, Rows]:
    """{"tasks": what is asked, by which version}: the harness has the rows themselves.

    Raises:
        UserError: no task is named, or the harness is not installed.
    """
    tasks = names_in(config.evaluate.harness)
    if not tasks:
        raise UserError("evaluate.harness is empty: name tasks, as --config.evaluate.harness=arc_easy,mmlu")
    version = getattr(require_harness(config.evaluate.harness), "__version__", "")
    return {"tasks": [{"task": task, "version": version, "limit": config.evaluate.harness_limit} for task in tasks]}


def measure_tasks(setup: Setup) -> dict[str, Any]:
    """{task: {"metric, filter": {"value", "stderr", "rows"}}} of the harness's own aggregates."""
    settings = setup.config.evaluate
    lm_eval = require_harness(settings.harness)
    model = harness_model(lm_eval, setup.sampler, setup.config.model.path)
    options = {"limit": settings.harness_limit or None, "log_samples": False, "bootstrap_iters": 1000}
    try:
        result = lm_eval.simple_evaluate(model=model, tasks=names_in(settings.harness), **options)
    except (KeyError, ValueError, FileNotFoundError) as error:
        reason = first_line(error)
        raise UserError(f"evaluate.harness={settings.harness!r}: the harness does not run it: {reason}") from None
    return {task: read_task(values, rows_of(result, task)) for task, values in result["results"].items()}


def rows_of(result: dict[str, Any], task: str) -> int | None:
    """How many rows of a task were asked; None where the harness does not say."""
    return ((result.get("n-samples") or {}).get(task) or {}).get("effective")


def read_task(values: dict[str, Any], rows: int | None) -> dict[str, Any]:
    """The numbers of one task; what is no number, as a name or a standard error of "N/A", is left out."""
    read = {}
    for key, value in values.items():
        metric, _, way = key.partition(",")
        if isinstance(value, int | float) and way and not metric.endswith("_stderr") and math.isfinite(value):
            error = values.get(f"{metric}_stderr,{way}")
            name = metric if way == "none" else f"{metric}, {way}"
            stderr = float(error) if isinstance(error, int | float) else None
            read[name] = {"value": float(value), "stderr": stderr, "rows": rows}
    return read


def task_lines(result: dict[str, Any]) -> list[Line]:
    """A line for each metric of each task, with the interval that its standard error gives."""
    lines = []
    for task, metrics in result.items():
        for metric, entry in metrics.items():
            value, error = entry["value"], entry["stderr"]
            bounds = (None, None) if error is None else (value - SPREAD * error, value + SPREAD * error)
            lines.append(Line(task, value, *bounds, entry["rows"], form="number", hint=metric))
    return lines


VIEW = View("lm-evaluation-harness", task_lines, "As the harness counts; prompts without a chat template.")
HARNESS = Benchmark("harness", load_tasks, (Part("harness", VIEW, (Measurement("harness", measure_tasks),)),))
