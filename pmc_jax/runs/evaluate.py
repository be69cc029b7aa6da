"""`pmc-jax evaluate`: one checkpoint, alone and complete, in a workdir; or the aggregates of an official log,
recomputed.
"""

import json
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.evaluate import attacks, logs, metrics, tofu
from pmc_jax.evaluate.drift import drift, forget_words
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.neighbours import neighbours
from pmc_jax.evaluate.parts import NO_ANSWERS, NO_ORIGINAL, Setup, measure
from pmc_jax.evaluate.summary import summarise
from pmc_jax.models import find_family, pretrained
from pmc_jax.runs import console
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.report import write_page
from pmc_jax.runs.tables import show
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, versions, write_json

Parts = dict[str, dict[str, Any]]


def recompute_log(log: str, retain_log: str | None) -> None:
    """Print {name: value} of every aggregate of an official TOFU log, recomputed from its rows; on stderr of how many
    rows, and why some are not computed.
    """
    found = logs.recompute(logs.read_log(log), logs.read_log(retain_log) if retain_log else None)
    print(json.dumps(found.values, indent=2))
    rows = ", ".join(f"{name} {count}" for name, count in found.rows.items() if name not in found.reasons)
    console.stderr.print(f"rows: {rows}", soft_wrap=True, highlight=False)
    for name, reason in found.reasons.items():
        console.stderr.print(f"{name}: not computed: {reason}", soft_wrap=True, highlight=False)
    for name, note in found.notes.items():
        console.stderr.print(f"{name}: {note}", soft_wrap=True, highlight=False)


def check_checkpoint(setting: str, path: str) -> None:
    """UserError that names the setting unless `path` is a checkpoint of a known kind; its tensors are not read."""
    try:
        folder = pretrained.find_folder(path)
        raw = pretrained.read_json(folder / "config.json")
        find_family(raw).read_config(raw)
        if not any(folder.glob("*.safetensors")):
            raise UserError(f"{folder}: has no *.safetensors")
    except UserError as error:
        raise UserError(f"{setting}={path!r}: {str(error).removeprefix(f'model.path={path!r}: ')}") from None


def loader(config: ConfigDict) -> Callable[[str], Sampler]:
    """path -> greedy generator of that checkpoint; the last one stays loaded, and goes before the next one is read: one
    model is in memory.
    """
    kept: dict[str, Sampler] = {}

    def load(path: str) -> Sampler:
        if path not in kept:
            kept.clear()
            theirs = settings.changed(config, {"model.path": path})
            kept[path] = greedy_sampler(load_checkpoint(theirs), theirs)
        return kept[path]

    return load


def run_evaluate(config: ConfigDict, workdir: str, retain_log: str | None = None) -> dict[str, Any]:
    """Measure every part that the data and the settings allow; one that was stopped goes on with the part it was at.
    Returns result.json.

    retain_log: the official log of a model that never saw the forget set, in the place of evaluate.retain_model.
    """
    settings.check(config)
    given_log = logs.read_log(retain_log) if retain_log else None
    pretrained.check_path(config.model.path)
    for name in ("retain_model", "original_model"):
        if config.evaluate[name]:
            check_checkpoint(f"evaluate.{name}", config.evaluate[name])
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
            sets = questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)
            setup = Setup(work, config, sets, tofu.load_sets(config.data), loader(config))
            hashes = {
                name: data_hash(rows) for name, rows in (sets | {f"tofu_{k}": v for k, v in setup.tofu.items()}).items()
            }
            if given_log:
                hashes["retain_log"] = data_hash(given_log)
            finished = multihost.broadcast_from_primary(
                lambda: work.finished("evaluate", settings.to_flat(config), hashes)
            )
            if finished:
                write_page(work, again=False)
                console.console.print(f"{work.path} holds this evaluation, finished; nothing was changed.")
                return show(finished)
            tokenizer = (
                setup.model().text.tokenizer
            )  # before the folder is made: a checkpoint that does not load leaves none
            if config.evaluate.original_model and not tokenizer.is_fast:
                raise UserError(
                    f"evaluate.original_model: drift needs to know where tokens lie in a text; {config.model.path}'s "
                    "tokenizer does not tell"
                )
            multihost.broadcast_from_primary(lambda: work.claim("evaluate", settings.to_flat(config), hashes))
        with clock.phase("evaluate"):
            parts = measure(setup)
        seconds = {
            "seconds": clock.seconds | {"total": clock.total()},
            "evaluate_parts": {name: part["seconds"] for name, part in parts.items()},
        }
        result = combine(setup, parts, given_log) | seconds | {"data": hashes, "versions": versions()}
        write_json(work.file("result.json"), result)
    write_page(work)
    return show(result)


def combine(setup: Setup, parts: Parts, given_log: dict[str, Any] | None) -> dict[str, Any]:
    """What result.json says, from the parts: a pure function of them, but for the logs that it writes."""
    found = {name: part["found"] for name, part in parts.items()}
    leaks = {how: found[f"leakage_{how}"] for how in ("sampled", "prefilled")}
    curves = {"model": found["relearning"], "retain_model": found["retain_relearning"]}
    return {
        "model": found["answers"],
        "tofu": tofu_result(setup, found, given_log),
        "least_likely_option": option_result(setup, found),
        "leakage": leaks,
        "relearning": curves,
        "drift": drift_result(setup, found),
        "neighbours": neighbours_result(setup, found),
    }


def tofu_result(setup: Setup, found: Parts, given_log: dict[str, Any] | None) -> dict[str, Any]:
    """The summary of the TOFU log, which is written to tofu_log.json, that of the retain model beside it."""
    if setup.no_tofu():
        return setup.no_tofu()
    theirs = found["retain_model"].get("rows")
    retain_log = logs.write_log(setup.work.file("retain_log.json"), theirs) if theirs else given_log
    rows = found["likelihoods"]["rows"] | found["gradients"]["rows"] | found["tofu_answers"]["rows"]
    if retain_log and "mia_loss" in rows and "mia_loss" in retain_log:
        rows |= tofu.reference_rows(rows, retain_log)
    log = logs.write_log(setup.work.file("tofu_log.json"), rows, retain_log)
    strict = mean_with_interval(found["likelihoods"]["strict_extraction"])
    entry = {
        "value": strict.mean,
        "rows": strict.rows,
        "note": "0 where the last token is missed; the log's floor is 1/n",
    }
    found_metrics = summarise(log, retain_log)
    missing = {name: {"value": None, "rows": 0, "reason": why} for name, why in absent(setup, log, retain_log).items()}
    return (
        found_metrics
        | missing
        | {"extraction_strength_strict": entry | ({"interval": strict[1:3]} if strict.low is not None else {})}
    )


def absent(setup: Setup, log: dict[str, Any], retain_log: dict[str, Any] | None) -> dict[str, str]:
    """{metric: why} of TOFU's metrics that the log lacks, since the data or the settings lack what they need."""
    holdout = (
        f"the data has no {setup.config.data.forget.replace('forget', 'holdout')}: rows like the forget "
        "ones that no model has seen"
    )
    needed = "the forget rows lack paraphrased or wrong answers (paraphrased_answer, perturbed_answer)"
    why = dict.fromkeys((*logs.ATTACKS, "privleak"), holdout) | {
        logs.RATIOS["forget"]: needed,
        "forget_quality": needed,
    }
    if "holdout" in setup.tofu:
        why["mia_reference"] = (
            "the retain log has no attacks, or on other numbers of rows" if retain_log else metrics.NO_RETAIN
        )
    why["model_utility"] = f"needs {', '.join(name for name in logs.UTILITY if name not in log)}"
    return {name: reason for name, reason in why.items() if name not in log}


def option_result(setup: Setup, found: Parts) -> dict[str, Any]:
    """The attack by the least likely option of a multiple choice, from the likelihoods of right and wrong answers."""
    if setup.no_tofu():
        return setup.no_tofu()
    rows = found["likelihoods"]["rows"]
    if "forget_Q_A_PERT_Prob" not in rows:
        return {"reason": "the forget rows have no wrong answers (perturbed_answer)"}
    right, wrong = ([row["avg_loss"] for row in rows[name]] for name in ("forget_Q_A_Prob", "forget_Q_A_PERT_Prob"))
    return attacks.least_likely_option(right, wrong)


def drift_result(setup: Setup, found: Parts) -> dict[str, Any]:
    """The drift of the forget answers' words since the original model."""
    if not setup.config.evaluate.original_model:
        return NO_ORIGINAL
    secrets = [row.get("answer") for row in setup.sets["forget"]]
    return (
        drift(found["original_model"]["words"], found["likelihoods"]["words"], forget_words(secrets))
        if all(secrets)
        else NO_ANSWERS
    )


def neighbours_result(setup: Setup, found: Parts) -> dict[str, Any]:
    """Near and far retain rows, and their change since the original model."""
    recall = [row["rouge_l_recall"] for row in setup.answers() if row["set"] == "retain"]
    asked = ([row["question"] for row in setup.sets[name]] for name in ("forget", "retain"))
    result = neighbours(*asked, recall, found["original_model"].get("retain_recall"))
    return result if "change" in result or "reason" in result else result | {"change": NO_ORIGINAL}
