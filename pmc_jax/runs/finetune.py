"""The verb `finetune`: train in a workdir, export to hf/."""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.methods.finetune import finetune
from pmc_jax.models import pretrained
from pmc_jax.runs.console import console
from pmc_jax.runs.load import finetune_rows, start_checkpoint
from pmc_jax.tracking.progress import clock_time, track
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, versions, write_json
from pmc_jax.training.checkpoint import RoundCheckpointer


def run_finetune(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Fine-tune in `workdir`, export to hf/; goes on where an earlier run of the same command was stopped."""
    settings.check(config)
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            rows = finetune_rows(config)
            hashes = {"finetune": data_hash(rows)}
            finished = multihost.broadcast_from_primary(
                lambda: work.finished("finetune", settings.to_flat(config), hashes)
            )
            if finished:
                console.print(
                    f"{work.path} holds this run, finished; nothing was changed. Its checkpoint: {work.path / 'hf'}"
                )
                return finished
            checkpoint = start_checkpoint(config, rows)
            multihost.broadcast_from_primary(lambda: work.claim("finetune", settings.to_flat(config), hashes))
            rounds = RoundCheckpointer(work.file("rounds"), config.rounds.keep)
        first = rounds.next()
        work.drop_metrics_from(first)
        with track("finetune, epochs", config.train.epochs, first) as advance:

            def on_epoch(summary):
                work.add_metrics([{"kind": "epoch", **summary}])
                advance(summary["round"] + 1, f"loss {summary['loss']:.3f}")

            trained, history = finetune(
                checkpoint, rows, config, rounds=rounds, clock=clock, on_epoch=on_epoch, keep_start=False
            )
        with clock.phase("save"):
            rounds.close()
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
