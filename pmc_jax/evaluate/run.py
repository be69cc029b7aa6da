"""`pmc-jax evaluate`: one checkpoint, alone and complete, in a workdir; or the aggregates of an official log, recomputed."""

import json
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from pmc_jax import config as settings
from pmc_jax import hosts, questions, runs
from pmc_jax.draw import GREEDY
from pmc_jax.evaluate import attacks, logs, metrics, tofu
from pmc_jax.evaluate.relearn import relearning
from pmc_jax.generate import Generator, make_generator
from pmc_jax.progress import track
from pmc_jax.report import page
from pmc_jax.timing import Clock
from pmc_jax.workdir import Workdir, data_hash, read_json, read_lines, versions, write_json, write_lines


def recompute_log(log: str, retain_log: str | None) -> None:
    """Print {name: value} of every aggregate of an official TOFU log, recomputed from its rows; on stderr why some are not computed."""
    found = logs.recompute(logs.read_log(log), logs.read_log(retain_log) if retain_log else None)
    print(json.dumps(found.values, indent=2))
    for name, reason in found.reasons.items():
        runs.stderr.print(f"{name}: not computed: {reason}", soft_wrap=True, highlight=False)


def summarise(log: dict[str, Any], retain_log: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """{metric: {"value", "rows", and "interval" (bootstrap 95 %) where it is a mean over rows, "reason" where it is not computed}}."""
    found = logs.recompute(log, retain_log)
    summary: dict[str, dict[str, Any]] = {}
    for name, value in found.values.items():
        summary[name] = {"value": value, "rows": found.rows[name]}
        if name in found.reasons:
            summary[name]["reason"] = found.reasons[name]
        elif name in logs.RULES:
            key, mean = logs.RULES[name]
            # Each of these aggregates is a mean of a function of single rows.
            parts_N = [mean(np.array([v])) for v in logs.row_values(log[name], key)]
            summary[name]["interval"] = metrics.mean_with_interval(parts_N)[1:3]
    return summary


def tofu_table(summary: dict[str, dict[str, Any]]) -> Table:
    """The summary, one metric a line."""
    found = Table(title="TOFU metrics, by the names of its evaluation logs")
    for heading in ("", "value", "95 % interval", "rows"):
        found.add_column(heading, justify="right" if heading else "left")
    for name, entry in summary.items():
        if "/" not in name:
            low, high = entry.get("interval") or (None, None)
            value = f"{entry['value']:.4g}" if entry["value"] is not None else "not computed"
            interval = f"{low:.3f} .. {high:.3f}" if low is not None else entry.get("reason", "")
            found.add_row(name, value, interval, str(entry["rows"]))
    return found


def retain_model_log(generator: Generator, sets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """The log on forget and holdout rows of the model that never saw the forget set, and its losses for the reference attack."""
    sides = {side: sets[side] for side in ("forget", "holdout") if side in sets}
    scores = tofu.score_sets(generator, sides)
    log = logs.make_log(tofu.evaluate_tofu(generator, sides, scores, {}))
    return log, tofu.reference_losses(scores) if "holdout" in sets else None


def run_evaluate(config: ConfigDict, workdir: str, retain_log: str | None = None) -> dict[str, Any]:
    """Greedy answers, unlearn quality and utility; then TOFU's metrics where the data has their splits. One that was stopped keeps its answers."""
    settings.check(config)
    work = Workdir(workdir)
    given_log = logs.read_log(retain_log) if retain_log else None
    with Clock() as clock:
        with clock.phase("load"):
            forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
            sets = questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)
            tofu_sets = tofu.load_sets(config.data)
            hashes = {name: data_hash(rows) for name, rows in (sets | {f"tofu_{k}": v for k, v in tofu_sets.items()}).items()}
            finished = hosts.from_first(lambda: work.finished("evaluate", settings.to_flat(config), hashes))
            if finished:
                runs.console.print(f"{work.path} holds this evaluation, finished; nothing was changed.")
                return show(finished)
            checkpoint = runs.load_checkpoint(config)
            hosts.from_first(lambda: work.claim("evaluate", settings.to_flat(config), hashes))
        parts: dict[str, float] = {}
        with clock.phase("evaluate"):
            start = time.perf_counter()
            summary = hosts.from_first(lambda: read_json(work.path / "summary.json"))
            if summary is None:
                found = runs.evaluate_on(checkpoint, config, sets, None, "answers")
                write_lines(work.file("answers/model.jsonl"), found.answers)
                summary = found.summary()
                write_json(work.file("summary.json"), summary)
            parts["answers"] = time.perf_counter() - start
            result: dict[str, Any] = {"model": summary}
            if "forget" in tofu_sets:
                result |= evaluate_parts(work, checkpoint, config, tofu_sets, given_log, parts)
        seconds = clock.seconds | {"total": clock.total()}
        result |= {"seconds": seconds, "evaluate_parts": parts, "data": hashes, "versions": versions()}
        write_json(work.file("result.json"), result)
    hosts.from_first(lambda: str(page.write([work.path])))
    return show(result)


def evaluate_parts(work: Workdir, checkpoint, config: ConfigDict, sets: dict[str, Any], given_log: dict[str, Any] | None, parts: dict[str, float]):
    """What result.json gets beyond the answers. The TOFU log is written to tofu_log.json, that of the retain model, where one is named, beside it."""
    start = time.perf_counter()

    def part_done(name: str) -> None:
        nonlocal start
        parts[name], start = time.perf_counter() - start, time.perf_counter()

    retain_log, reference, found = given_log, None, {"attacks": {}}
    if config.evaluate.retain_model:
        theirs = settings.changed(config, {"model.path": config.evaluate.retain_model})
        retain = make_generator(runs.load_checkpoint(theirs), theirs, GREEDY, 1)
        retain_log, reference = retain_model_log(retain, sets)
        write_json(work.file("retain_log.json"), retain_log)
        part_done("retain model")
        if config.evaluate.relearn_rows:
            found["attacks"]["relearning, retain model"] = relearn(retain, config, sets["forget"], "retain model")
            part_done("relearning, retain model")
    answers = hosts.from_first(lambda: read_lines(work.path / "answers" / "model.jsonl"))
    known = {a["question"]: a["answer"] for a in answers}
    generator = make_generator(checkpoint, config, GREEDY, 1)
    scores = tofu.score_sets(generator, sets)
    part_done("likelihoods")
    with track("TOFU, answers", len({r["question"] for s in sets.values() for r in s} - known.keys())) as advance:
        log = logs.write_log(work.file("tofu_log.json"), tofu.evaluate_tofu(generator, sets, scores, known, reference, advance), retain_log)
    part_done("TOFU")
    found["tofu"] = summarise(log, retain_log)
    if "forget_Q_A_PERT_Prob" in scores:
        found["attacks"]["least likely option"] = attacks.least_likely_option(scores["forget_Q_A_Prob"], scores["forget_Q_A_PERT_Prob"])
    if config.evaluate.leak_samples:
        for name, prefill in (("sampled", ""), ("prefilled", attacks.PREFILL)):
            with track(f"leakage, {name}", len(sets["forget"])) as advance:
                found["attacks"][name] = attacks.sampled_leakage(generator, sets["forget"], config.evaluate.leak_samples, prefill, advance)
        part_done("leakage")
    if config.evaluate.relearn_rows:
        found["attacks"]["relearning"] = relearn(generator, config, sets["forget"], "model")
        part_done("relearning")
    return found


def relearn(generator: Generator, config: ConfigDict, rows: questions.Rows, whose: str) -> list[dict[str, float]]:
    """The relearning attack with a progress line."""
    with track(f"relearning, {whose}, updates", config.evaluate.relearn_updates) as advance:
        return relearning(generator, config, rows, advance)


def relearning_table(found: dict[str, Any]) -> Table:
    """Recall of the forget answers that were held back, by updates on those that were shown."""
    curves = {name: found[name] for name in ("relearning", "relearning, retain model") if name in found}
    table = Table(title="ROUGE-L recall of forget answers held back, by updates on the ones shown")
    table.add_column("updates", justify="right")
    for name in curves:
        table.add_column("this model" if name == "relearning" else "retain model", justify="right")
    for looks in zip(*curves.values()):
        table.add_row(str(looks[0]["updates"]), *("-" if look["held_back"] is None else f"{look['held_back']:.3f}" for look in looks))
    return table


def attacks_table(found: dict[str, Any]) -> Table:
    """Leakage, sampled and after a prefilled answer, and the least likely option."""
    table = Table(title=f"Leakage of the forget answers, {found['sampled']['samples']} samples a question; M_...: bounds at 95 %")
    for heading in ("", "sampled", f"after {attacks.PREFILL!r}"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in found["sampled"]:
        if name != "samples":
            table.add_row(name, *(f"{found[how][name]['mean']:.3f}" for how in ("sampled", "prefilled")))
    return table


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Print an evaluation's tables and its cost by part. Returns the result."""
    runs.console.print(runs.table({"model": result["model"]}))
    if "tofu" in result:
        runs.console.print(tofu_table(result["tofu"]))
        option = result["attacks"].get("least likely option")
        if option:
            runs.console.print(
                f"the least likely option is the secret in {option['mean']:.3f} of {option['rows']} rows, by chance {option['chance']:.3f}"
            )
        if "sampled" in result["attacks"]:
            runs.console.print(attacks_table(result["attacks"]))
        if "relearning" in result["attacks"]:
            runs.console.print(relearning_table(result["attacks"]))
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["evaluate_parts"].items())
    runs.console.print(f"seconds by part: {parts}", highlight=False)
    return result
