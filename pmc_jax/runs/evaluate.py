"""The verb `evaluate`: one checkpoint, alone and complete, in a workdir; or the aggregates of an official log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.evaluate import lines, log_format, logs
from pmc_jax.evaluate.benchmark import MODEL, Benchmark, Setup
from pmc_jax.evaluate.benchmarks import chosen
from pmc_jax.evaluate.benchmarks.harness import HARNESS
from pmc_jax.evaluate.benchmarks.quality import QUALITY
from pmc_jax.evaluate.benchmarks.robustness import check_tokenizer
from pmc_jax.evaluate.measure import measure, parts_of, results, tables
from pmc_jax.evaluate.views import VIEWS
from pmc_jax.models import find_family, gguf, pretrained
from pmc_jax.runs import console
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.report import write_page
from pmc_jax.runs.start import claim, read_data
from pmc_jax.runs.topic import check_not_asked
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.files import write_json
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, started_with, versions


def recompute_log(log: str, retain_log: str | None) -> None:
    """Print every aggregate of an official TOFU log, recomputed from its rows.

    On stdout: {name: value}. On stderr: of how many rows, and why some are not computed.

    Args:
        log: JSON file of the log.
        retain_log: that of a retain model, or None.
    """
    recomputed = logs.recompute(log_format.read_log(log), log_format.read_log(retain_log) if retain_log else None)
    print(json.dumps(recomputed.values, indent=2))
    rows = ", ".join(f"{name} {count}" for name, count in recomputed.rows.items() if name not in recomputed.reasons)
    messages = [f"rows: {rows}"]
    messages += [f"{name}: not computed: {reason}" for name, reason in recomputed.reasons.items()]
    messages += [f"{name}: {note}" for name, note in recomputed.notes.items()]
    for message in messages:
        console.stderr.print(message, soft_wrap=True, highlight=False)


def check_checkpoint(setting: str, path: str, family: str) -> None:
    """UserError that names the setting unless `path` is a checkpoint of a known kind; its tensors are not read."""
    try:
        if Path(path).is_file():
            gguf.read(path)
            return
        folder = pretrained.find_folder(path)
        raw = pretrained.read_json(folder / "config.json")
        find_family(raw, family).read_config(raw)
        if not any(folder.glob("*.safetensors")):
            raise UserError(f"{folder}: has no *.safetensors")
    except UserError as error:
        raise UserError(f"{setting}={path!r}: {str(error).removeprefix(f'model.path={path!r}: ')}") from None


def loader(config: ConfigDict) -> Callable[[str], Sampler]:
    """A function from the setting of a checkpoint to its greedy sampler.

    The last one stays loaded, and goes before the next one is read: one model is in memory.
    """
    loaded: dict[str, Sampler] = {}

    def load(setting: str) -> Sampler:
        path = settings.lookup(config, setting)
        if path not in loaded:
            loaded.clear()
            own_config = settings.changed(config, {"model.path": path})
            loaded[path] = greedy_sampler(load_checkpoint(own_config), own_config)
        return loaded[path]

    return load


def load_setup(
    work: Workdir, config: ConfigDict, benchmarks: tuple[Benchmark, ...], retain_log: dict[str, Any] | None
) -> Setup:
    """The setup of an evaluation, with the data of its benchmarks."""
    data = {benchmark.name: benchmark.load(config) for benchmark in benchmarks}
    return Setup(work, config, data, retain_log=retain_log)


def hashes_of(setup: Setup) -> dict[str, str]:
    """The hash of every set: those of `quality` by their names, others as BENCHMARK_SET."""
    hashes = {
        name if benchmark == QUALITY.name else f"{benchmark}_{name}": data_hash(rows)
        for benchmark, sets in setup.data.items()
        for name, rows in sets.items()
    }
    return hashes | ({"retain_log": data_hash(setup.retain_log)} if setup.retain_log else {})


def run_evaluate(config: ConfigDict, workdir: str, retain_log: str | None = None) -> dict[str, Any]:
    """Measure all that the chosen benchmarks, the data and the settings allow.

    An evaluation that was stopped goes on with the measurement it was at.

    Args:
        config: all settings.
        workdir: the folder that keeps everything.
        retain_log: the official log of a model that never saw the forget set, in the place of evaluate.retain_model.

    Returns:
        result.json.
    """
    config = settings.with_whole_paths(settings.check(config))
    check_not_asked(config)
    benchmarks = chosen(config.evaluate.benchmarks + (f",{HARNESS.name}" if config.evaluate.harness else ""))
    parts_of(benchmarks)  # a name that is taken twice is refused before anything is read
    given_log = log_format.read_log(retain_log) if retain_log else None
    pretrained.check_path(config.model.path)
    for name in ("evaluate.retain_model", "evaluate.original_model"):
        if path := settings.lookup(config, name):
            check_checkpoint(name, path, config.model.family)
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            setup = read_data(work, config, lambda: load_setup(work, config, benchmarks, given_log), hashes_of)
            hashes = None if setup is None else hashes_of(setup)
            started = started_with("evaluate", config, hashes)
            finished = multihost.broadcast_from_primary(lambda: work.finished(started))
            if finished:
                write_page(work, again=False)
                console.console.print(f"{work.path} holds this evaluation, finished; nothing was changed.")
                return show(finished)
            load = loader(config)
            check_tokenizer(config, load(MODEL).text.tokenizer)  # a checkpoint that does not load leaves no folder
            claim(work, started)
        with clock.phase("evaluate"):
            result = evaluate_parts(setup, benchmarks, load)
        times = {"seconds": clock.seconds | {"total": clock.total()}}
        result = result | times | {"data": hashes, "versions": versions()}
        write_json(work.file("result.json"), result)
    write_page(work)
    return show(result)


def evaluate_parts(setup: Setup, benchmarks: tuple[Benchmark, ...], load: Callable[[str], Sampler]) -> dict[str, Any]:
    """All results by their keys, their tables, and the seconds of each measurement."""
    parts = parts_of(benchmarks)
    seconds = measure(setup, parts, load)
    made = results(setup, parts)
    shown = {key: lines.to_json(table) for key, table in tables(made, parts).items()}
    return made | {"tables": shown, "evaluate_parts": seconds}


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Print an evaluation's tables and its cost by measurement. Returns the result."""
    console.print_tables(lines.tables_of(result, VIEWS))
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["evaluate_parts"].items() if seconds >= 0.05)
    total = result["seconds"]["total"]
    console.console.print(f"seconds by part: {parts}; with loading {total:.1f}", highlight=False, soft_wrap=True)
    return result
