"""Runs benchmarks: each measurement once, one model in memory at a time, then results and tables from the findings.

A measurement that an earlier start of the same evaluation finished is read, and not made again.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from pmc_jax.errors import UserError
from pmc_jax.evaluate import lines
from pmc_jax.evaluate.benchmark import (
    MODEL,
    MODELS,
    ORIGINAL_MODEL,
    RETAIN_MODEL,
    Benchmark,
    Measurement,
    Part,
    Setup,
    read_finished,
)
from pmc_jax.evaluate.scoring import Scores, score_sets
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.files import write_json

PROGRESS = {MODEL: "", RETAIN_MODEL: "retain model, ", ORIGINAL_MODEL: "original model, "}  # begins progress lines
RESERVED = ("seconds", "evaluate_parts", "data", "versions", "tables")  # keys of result.json that are no part's


def parts_of(benchmarks: tuple[Benchmark, ...]) -> list[Part]:
    """All parts in their order.

    Raises:
        UserError: two parts have the same key.
    """
    owners: dict[str, str] = dict.fromkeys(RESERVED, "pmc-jax itself")
    for benchmark in benchmarks:
        for part in benchmark.parts:
            if part.key in owners:
                raise UserError(
                    f"evaluate.benchmarks: {owners[part.key]} and {benchmark.name} both have a result called "
                    f"{part.key!r}; rename the part that is your own"
                )
            owners[part.key] = benchmark.name
    return [part for benchmark in benchmarks for part in benchmark.parts]


def measurements_of(parts: list[Part]) -> list[Measurement]:
    """Every measurement that a part needs, once, those of one model together.

    Raises:
        UserError: two different measurements have the same name.
    """
    by_name: dict[str, Measurement] = {}
    for measurement in (m for part in parts for m in part.measurements):
        if by_name.setdefault(measurement.name, measurement) != measurement:
            raise UserError(f"evaluate.benchmarks: two measurements are called {measurement.name!r}; rename one")
    return sorted(by_name.values(), key=lambda measurement: MODELS.index(measurement.model))


def reason_against(measurement: Measurement, parts: list[Part], setup: Setup) -> str | None:
    """Why a measurement is not made: no part that needs it has a result, or it cannot be made. None where it is."""
    absences = [part.absent(setup) for part in parts if measurement in part.measurements]
    return absences[0] if all(absences) else measurement.reason(setup)


def measure(setup: Setup, parts: list[Part], load: Callable[[str], Sampler]) -> dict[str, float]:
    """Make all measurements that are not there yet.

    Args:
        setup: its sampler and scores are not used.
        parts: of all chosen benchmarks.
        load: setting of a checkpoint, one of `MODELS` -> its greedy sampler.

    Returns:
        {measurement: seconds it took}.
    """
    measurements = measurements_of(parts)
    reasons = {m.name: reason_against(m, parts, setup) for m in measurements}
    for model in MODELS:
        own = [m for m in measurements if m.model == model]
        made = [m for m in own if not reasons[m.name]]
        score_all = functools.cache(functools.partial(score_texts, setup, made, load))  # let go with the model
        for m in own:
            if read_finished(setup.work, m.name) is None:
                start = time.perf_counter()
                if reasons[m.name]:
                    finding = {"reason": reasons[m.name]}
                else:
                    scores = functools.partial(own_scores, m, score_all)
                    finding = m.run(setup._replace(sampler=load(model), scores=scores))
                seconds = time.perf_counter() - start
                write_json(setup.work.file(f"parts/{m.name}.json"), {"found": finding, "seconds": seconds})
    return {m.name: read_finished(setup.work, m.name)["seconds"] for m in measurements}


def score_texts(setup: Setup, measurements: list[Measurement], load: Callable[[str], Sampler]) -> Scores:
    """The likelihoods of the texts of all measurements of one model in one pass; sets are called MEASUREMENT:SET.

    Also the texts of measurements that were made by an earlier start: a resumed evaluation then scores the same batches
    and finds the same numbers.
    """
    model = measurements[0].model
    sets = {f"{m.name}:{name}": rows for m in measurements for name, rows in m.texts(setup).items()}
    return score_sets(load(model), sets, f"{PROGRESS[model]}likelihoods")


def own_scores(measurement: Measurement, score_all: Callable[[], Scores]) -> Scores:
    """The likelihoods of one measurement's texts."""
    mine = f"{measurement.name}:"
    return {key.removeprefix(mine): scores for key, scores in score_all().items() if key.startswith(mine)}


def results(setup: Setup, parts: list[Part]) -> dict[str, dict[str, Any]]:
    """Every part's result from what was measured.

    Returns:
        {key: result}; {"reason": why} for a part that is absent.

    Raises:
        UserError: a result is no dict.
    """
    made: dict[str, dict[str, Any]] = {}
    for part in parts:
        reason = part.absent(setup)
        if reason:
            made[part.key] = {"reason": reason}
        else:
            made[part.key] = part.result(setup) if part.result else setup.finding(part.measurements[0].name)
        if not isinstance(made[part.key], dict):
            kind = type(made[part.key]).__name__
            raise UserError(f"evaluate.benchmarks: the result of {part.key!r} is a {kind}; a dict is needed")
    return made


def tables(made: dict[str, dict[str, Any]], parts: list[Part]) -> dict[str, lines.Table]:
    """{key: the result's table}: what the terminal, result.json and the page show."""
    return {part.key: lines.table(part.view, made[part.key]) for part in parts}
