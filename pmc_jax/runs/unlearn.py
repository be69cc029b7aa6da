"""The verb `unlearn`: evaluate, unlearn, evaluate, export, all in a workdir."""

from typing import Any

from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.distributed import multihost
from pmc_jax.evaluate.answers import Evaluation, evaluate
from pmc_jax.methods import pmc
from pmc_jax.methods.rewards import resolve_reward
from pmc_jax.models import pretrained
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.runs.console import console, print_result
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.report import write_page
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.progress import track
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, read_json, versions, write_json, write_lines
from pmc_jax.training.checkpoint import RoundCheckpointer


def evaluate_on(
    checkpoint: PretrainedModel,
    config: ConfigDict,
    sets: dict[str, Any],
    references: list[str] | None,
    what: str,
    show: bool = True,
) -> Evaluation:
    """Evaluation with progress lines."""
    return evaluate(greedy_sampler(checkpoint, config), sets, references, f"evaluate {what}", show)


def before_and_references(
    work: Workdir, checkpoint: PretrainedModel, config: ConfigDict, sets: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The original model's evaluation and its answers to the forget questions; from disk when an earlier start of this
    run has them.
    """
    kept = multihost.broadcast_from_primary(lambda: read_json(work.path / "before.json"))
    if kept is None:
        found = evaluate_on(checkpoint, config, sets, None, "before")
        write_lines(work.file("answers/before.jsonl"), found.answers)
        kept = {"summary": found.summary(), "references": [a["answer"] for a in found.answers if a["set"] == "forget"]}
        write_json(work.file("before.json"), kept)
    return kept["summary"], kept["references"]


def unlearn(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Evaluate, unlearn, evaluate, export, all in `workdir`; goes on where an earlier run of the same command was
    stopped. Returns result.json.
    """
    settings.check(config)
    resolve_reward(config.pmc.reward)  # before anything is loaded
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            pretrained.check_path(config.model.path)  # before the data, which may have to come from the hub
            forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
            pmc.check_sizes(config, forget, retain)
            sets = questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)
            hashes = {name: data_hash(rows) for name, rows in (sets | {"forget": forget, "retain": retain}).items()}
            finished = multihost.broadcast_from_primary(
                lambda: work.finished("unlearn", settings.to_flat(config), hashes)
            )
            if finished:
                write_page(work, again=False)
                console.print(
                    f"{work.path} holds this run, finished; nothing was changed. Its result: "
                    f"{work.path / 'result.json'}"
                )
                return finished
            checkpoint = load_checkpoint(config)
            pmc.check_inputs(checkpoint, config, forget, retain)
            multihost.broadcast_from_primary(lambda: work.claim("unlearn", settings.to_flat(config), hashes))
            rounds = RoundCheckpointer(work.file("rounds"), config.rounds.keep)
        with clock.phase("evaluate"):
            before, references = before_and_references(work, checkpoint, config, sets)
        unlearned, history = run_rounds(work, checkpoint, config, sets, forget, retain, references, rounds, clock)
        with clock.phase("evaluate"):
            after = evaluate_on(unlearned, config, sets, references, "after")
            write_lines(work.file("answers/after.jsonl"), after.answers)
        with clock.phase("save"):
            rounds.close()
            pretrained.export(unlearned, work.path / "hf")
        result = {
            "before": before,
            "after": after.summary(),
            "seconds": clock.seconds | {"total": clock.total()},
            "rounds": len(history),
            "sampled_tokens": sum(h["sampled_tokens"] for h in history),
            "solved": history[-1]["solved"],
            "stored_score": history[-1]["stored_score"],
            "data": hashes,
            "versions": versions(),
        }
        write_json(work.file("result.json"), result)
    write_page(work)
    print_result(work, result)
    return result


def run_rounds(
    work: Workdir,
    checkpoint,
    config,
    sets,
    forget,
    retain,
    references: list[str],
    rounds: RoundCheckpointer,
    clock: Clock,
):
    """The collapse rounds with progress; metrics.jsonl, samples/ and TensorBoard's events/ kept up."""
    total = config.train.epochs * pmc.rounds_per_epoch(config, len(forget))
    first = rounds.next()
    if first:
        console.print(f"{work.path}: goes on after round {first} of {total}")
    work.drop_metrics_from(first)
    evaluated: list[dict[str, Any]] = []
    with (
        track("unlearn, rounds", total, first) as advance,
        SummaryWriter(str(work.path / "events"), purge_step=first, write_to_disk=multihost.is_primary()) as events,
    ):

        def on_evaluate(number, unlearned):
            found = evaluate_on(unlearned, config, sets, references, f"after round {number}", show=False).summary()
            evaluated.append({"kind": "evaluation", "round": number, **found})
            for name in ("unlearn_quality", "utility"):
                if found[name] is not None:
                    events.add_scalar(name, found[name], number)

        def on_round(summary, seen, updates):
            write_lines(work.file(f"samples/round_{summary['round']:05d}.jsonl"), seen)
            lines = [{"kind": "update", "round": summary["round"], **u} for u in updates] + [
                {"kind": "round", **summary}
            ]
            work.add_metrics(lines + [e for e in evaluated if e["round"] == summary["round"]])
            for name, value in summary.items():
                if isinstance(value, float):
                    events.add_scalar(name, value, summary["round"])
            events.flush()
            advance(summary["round"] + 1, f"solved {summary['solved']:.0%}, score {summary['stored_score']:.2f}")

        calls = dict(on_round=on_round, on_evaluate=on_evaluate)
        return pmc.unlearn(
            checkpoint, forget, retain, config, references=references, rounds=rounds, clock=clock, **calls
        )
