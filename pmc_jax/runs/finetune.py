"""The verb `finetune`: train in a workdir, export to hf/."""

import contextlib
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.methods.finetune import finetune
from pmc_jax.models import pretrained
from pmc_jax.runs.console import console
from pmc_jax.runs.export import adopt_export
from pmc_jax.runs.load import finetune_rows, keep_tokenizer, start_checkpoint
from pmc_jax.runs.start import claim, read_data
from pmc_jax.runs.watch import RunWatch, profiled_rounds
from pmc_jax.tracking.files import write_json
from pmc_jax.tracking.progress import clock_time, track
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, started_with, versions
from pmc_jax.training.checkpoint import RoundCheckpointer


def finetune_hashes(rows: Rows) -> dict[str, str]:
    """The hash of the rows."""
    return {"finetune": data_hash(rows)}


def run_finetune(config: ConfigDict, workdir: str, profile: str = "") -> dict[str, Any]:
    """Fine-tune in `workdir`, export to hf/; goes on where an earlier run of the same command was stopped.

    profile: epochs whose traces are written, such as "2,3".
    """
    profiled = profiled_rounds(profile, config.train.epochs)
    config = settings.with_whole_paths(settings.check(config))
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            rows = read_data(work, config, lambda: finetune_rows(config), finetune_hashes)
            hashes = None if rows is None else finetune_hashes(rows)
            started = started_with("finetune", config, hashes)
            finished = multihost.broadcast_from_primary(lambda: work.finished(started))
            if finished:
                console.print(
                    f"{work.path} holds this run, finished; nothing was changed. Its checkpoint: {work.path / 'hf'}"
                )
                return finished
            checkpoint = start_checkpoint(config, rows)
            claim(work, started)
            keep_tokenizer(checkpoint, work.path)
            rounds = RoundCheckpointer(work.file("rounds"), config.rounds.keep)
        with contextlib.ExitStack() as stack:
            advance, watch = None, RunWatch(checkpoint, work.path / "profile", profiled)

            def on_start(first):
                nonlocal advance
                work.drop_metrics_from(first)
                advance = stack.enter_context(track("finetune, epochs", config.train.epochs, first))

            def on_epoch(summary):
                work.add_metrics([{"kind": "epoch", **summary, "speed": watch.speed}])
                advance(summary["round"] + 1, f"loss {summary['loss']:.3f}")

            hooks = dict(on_start=on_start, on_epoch=on_epoch, watch=watch)
            trained, history = finetune(checkpoint, rows, config, rounds=rounds, clock=clock, keep_start=False, **hooks)
        with clock.phase("save"):
            rounds.close()
            adopt_export(work.path / "hf")
            pretrained.export(trained, work.path / "hf")
        seconds = clock.seconds | {"total": clock.total()}
        result = {
            "loss": history[-1]["loss"],
            "epochs": len(history),
            "seconds": seconds,
            "data": hashes,
            "versions": versions(),
        }
        write_json(work.file("result.json"), result)
    console.print(
        f"fine-tuned on {len(rows)} rows in {clock_time(clock.total())}, loss {result['loss']:.4f}; checkpoint: "
        f"{work.path / 'hf'}"
    )
    return result
