"""What each verb of the command line does: load, run in a workdir, evaluate, export, report the result."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from tensorboardX import SummaryWriter

from pmc_jax import collapse, hosts, parallel, pretrained, questions
from pmc_jax import config as settings
from pmc_jax.checkpoint import Rounds
from pmc_jax.draw import GREEDY
from pmc_jax.errors import UserError
from pmc_jax.evaluate.collapse import Evaluation, evaluate
from pmc_jax.evaluate.quality import SETS
from pmc_jax.finetune import finetune
from pmc_jax.generate import make_generator
from pmc_jax.pretrained import Checkpoint
from pmc_jax.progress import clock_time, track
from pmc_jax.report import page
from pmc_jax.resume import saved_state
from pmc_jax.timing import Clock
from pmc_jax.tokenizer import train_tokenizer
from pmc_jax.train import plan_adapters, trained, with_remat
from pmc_jax.workdir import Workdir, data_hash, read_json, read_lines, versions, write_json, write_lines

LIKE = 0.9  # score of the answers kept at the end: where it is higher, the settings did not suit the model
console, stderr = Console(), Console(stderr=True)


def load_checkpoint(config: ConfigDict) -> Checkpoint:
    """The checkpoint that the settings name, on the mesh that they ask for, with remat set as they say."""
    checkpoint = pretrained.load(config.model.path, config.model.dtype, parallel.make_mesh(config.mesh.data, config.mesh.model))
    plan_adapters(checkpoint.family, checkpoint.model, config)  # an unknown target is told before anything is written
    return with_remat(checkpoint, config)


def evaluate_on(
    checkpoint: Checkpoint, config: ConfigDict, sets: dict[str, Any], references: list[str] | None, what: str, show: bool = True
) -> Evaluation:
    """Evaluation with progress lines."""
    return evaluate(make_generator(checkpoint, config, GREEDY, 1), sets, references, f"evaluate {what}", show)


def table(results: dict[str, dict[str, Any]]) -> Table:
    """A table of evaluation summaries, one column each, with bootstrap 95 % intervals."""
    found = Table(title="ROUGE-L recall of greedy answers (0..1), unlearn quality and utility (0..100)")
    for heading in ("", *results, "rows"):
        found.add_column(heading, justify="left" if not heading else "right")
    rows = next(iter(results.values()))["rows"]
    for name in (*SETS, "unlearn_quality", "utility"):
        digits = 1 if name in ("unlearn_quality", "utility") else 3
        found.add_row(name.replace("_", " "), *(cell(r, name, digits) for r in results.values()), str(rows.get(name, "")))
    return found


def cell(summary: dict[str, Any], name: str, digits: int) -> str:
    """A mean of an evaluation summary with its interval."""
    if summary[name] is None:
        return "not evaluated"
    span = summary.get("intervals", {}).get(name)
    return f"{summary[name]:.{digits}f}" + (f" [{span[0]:.{digits}f}, {span[1]:.{digits}f}]" if span else "")


def before_and_references(work: Workdir, checkpoint: Checkpoint, config: ConfigDict, sets: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The original model's evaluation and its answers to the forget questions; from disk when an earlier start of this run has them."""
    kept = hosts.from_first(lambda: read_json(work.path / "before.json"))
    if kept is None:
        found = evaluate_on(checkpoint, config, sets, None, "before")
        write_lines(work.file("answers/before.jsonl"), found.answers)
        kept = {"summary": found.summary(), "references": [a["answer"] for a in found.answers if a["set"] == "forget"]}
        write_json(work.file("before.json"), kept)
    return kept["summary"], kept["references"]


def unlearn(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Evaluate, unlearn, evaluate, export, all in `workdir`; goes on where an earlier run of the same command was stopped. Returns result.json."""
    settings.check(config)
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            pretrained.check_path(config.model.path)  # before the data, which may have to come from the hub
            forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
            collapse.check_sizes(config, forget, retain)
            sets = questions.load_evaluation(config.data, forget, retain, config.evaluate.retain_rows, config.seed)
            hashes = {name: data_hash(rows) for name, rows in (sets | {"forget": forget, "retain": retain}).items()}
            finished = hosts.from_first(lambda: work.finished("unlearn", settings.to_flat(config), hashes))
            if finished:
                write_page(work, again=False)
                console.print(f"{work.path} holds this run, finished; nothing was changed. Its result: {work.path / 'result.json'}")
                return finished
            checkpoint = load_checkpoint(config)
            collapse.check_inputs(checkpoint, config, forget, retain)
            hosts.from_first(lambda: work.claim("unlearn", settings.to_flat(config), hashes))
            rounds = Rounds(work.file("rounds"), config.rounds.keep)
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


def run_rounds(work: Workdir, checkpoint, config, sets, forget, retain, references: list[str], rounds: Rounds, clock: Clock):
    """The collapse rounds with progress; metrics.jsonl, samples/ and TensorBoard's events/ kept up."""
    total = config.train.epochs * collapse.rounds_per_epoch(config, len(forget))
    first = rounds.next()
    if first:
        console.print(f"{work.path}: goes on after round {first} of {total}")
    work.drop_metrics_from(first)
    evaluated: list[dict[str, Any]] = []
    with (
        track("unlearn, rounds", total, first) as advance,
        SummaryWriter(str(work.path / "events"), purge_step=first, write_to_disk=hosts.is_first()) as events,
    ):

        def on_evaluate(number, unlearned):
            found = evaluate_on(unlearned, config, sets, references, f"after round {number}", show=False).summary()
            evaluated.append({"kind": "evaluation", "round": number, **found})
            for name in ("unlearn_quality", "utility"):
                if found[name] is not None:
                    events.add_scalar(name, found[name], number)

        def on_round(summary, seen, updates):
            write_lines(work.file(f"samples/round_{summary['round']:05d}.jsonl"), seen)
            lines = [{"kind": "update", "round": summary["round"], **u} for u in updates] + [{"kind": "round", **summary}]
            work.add_metrics(lines + [e for e in evaluated if e["round"] == summary["round"]])
            for name, value in summary.items():
                if isinstance(value, float):
                    events.add_scalar(name, value, summary["round"])
            events.flush()
            advance(summary["round"] + 1, f"solved {summary['solved']:.0%}, score {summary['stored_score']:.2f}")

        calls = dict(on_round=on_round, on_evaluate=on_evaluate)
        return collapse.unlearn(checkpoint, forget, retain, config, references=references, rounds=rounds, clock=clock, **calls)


def write_page(work: Workdir, again: bool = True) -> None:
    """Write report.html. again: also where there is one; a run that was killed just after result.json has none."""
    hosts.from_first(lambda: str(page.write([work.path])) if again or not (work.path / "report.html").exists() else None)


def print_result(work: Workdir, result: dict[str, Any]) -> None:
    """The before/after table, the seconds, and where everything lies."""
    console.print(table({"before": result["before"], "after": result["after"]}))
    if result["after"]["forget_truth"] != "ground truth":
        console.print("The forget file has no answers: forget rows are measured against the original model's own answers.")
    if result["stored_score"] > LIKE:
        console.print(
            "Next to nothing was forgotten: the answers that were kept are the original ones, or all but those. A higher sample.temperature, more "
            "sample.num_samples, a higher train.learning_rate or more train.epochs draw the model away; samples/ has what was drawn.",
            style="bold",
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    console.print(f"seconds: {seconds}", highlight=False)
    where = {"checkpoint": "hf", "answers": "answers", "result": "result.json", "report": "report.html"}
    console.print("   ".join(f"{what}: {work.path / name}" for what, name in where.items()), soft_wrap=True)


def finetune_rows(config: ConfigDict) -> questions.Rows:
    """The rows of all splits named in data.finetune."""
    found: questions.Rows = []
    for split in config.data.finetune.split("+"):
        rows = questions.load_split(config.data.path, split)
        found += questions.check_rows(rows, f"{config.data.path} {split}", ("question", "answer"))
    return found


def start_checkpoint(config: ConfigDict, rows: questions.Rows) -> Checkpoint:
    """The checkpoint to fine-tune: loaded, or made from scratch when model.path is empty and model.scratch is given."""
    if config.model.path:
        return load_checkpoint(config)
    if not config.model.scratch:
        raise UserError("model.path is empty and so is model.scratch: name a checkpoint, or give the config.json of a new model")
    raw = json.loads(config.model.scratch.to_json())
    tokenizer = train_tokenizer(rows, raw["vocab_size"])
    raw |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.model)
    return pretrained.create(raw, tokenizer, config.seed, config.model.dtype, mesh)


def run_finetune(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Fine-tune in `workdir`, export to hf/; goes on where an earlier run of the same command was stopped."""
    settings.check(config)
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            rows = finetune_rows(config)
            hashes = {"finetune": data_hash(rows)}
            finished = hosts.from_first(lambda: work.finished("finetune", settings.to_flat(config), hashes))
            if finished:
                console.print(f"{work.path} holds this run, finished; nothing was changed. Its checkpoint: {work.path / 'hf'}")
                return finished
            checkpoint = start_checkpoint(config, rows)
            hosts.from_first(lambda: work.claim("finetune", settings.to_flat(config), hashes))
            rounds = Rounds(work.file("rounds"), config.rounds.keep)
        first = rounds.next()
        work.drop_metrics_from(first)
        with track("finetune, epochs", config.train.epochs, first) as advance:

            def on_epoch(summary):
                work.add_metrics([{"kind": "epoch", **summary}])
                advance(summary["round"] + 1, f"loss {summary['loss']:.3f}")

            trained, history = finetune(checkpoint, rows, config, rounds=rounds, clock=clock, on_epoch=on_epoch)
        with clock.phase("save"):
            rounds.close()
            pretrained.export(trained, work.path / "hf")
        seconds = clock.seconds | {"total": clock.total()}
        result = {"loss": history[-1]["loss"], "epochs": len(history), "seconds": seconds, "data": hashes, "versions": versions()}
        write_json(work.file("result.json"), result)
    console.print(f"fine-tuned on {len(rows)} rows in {clock_time(clock.total())}, loss {result['loss']:.4f}; checkpoint: {work.path / 'hf'}")
    return result


def run_export(workdir: str, output: str, number: int | None) -> Path:
    """Export a saved round of an unlearning or fine-tuning run as a Hugging Face checkpoint; the last one when `number` is None."""
    frozen = hosts.from_first(Workdir(workdir).frozen)
    if frozen is None or frozen["verb"] not in ("unlearn", "finetune"):
        raise UserError(f"--workdir={workdir}: holds no unlearning or fine-tuning run")
    config = settings.changed(settings.from_flat(frozen["settings"]), {"mesh.data": -1, "mesh.model": 1})  # the devices here, not those of the run
    unlearning = frozen["verb"] == "unlearn"
    rounds = Rounds(Path(workdir) / "rounds", read_only=True)  # the run may still be going on
    kept = rounds.all()
    if not kept or (number is not None and number not in kept):
        raise UserError(f"--workdir={workdir}: no saved round{'' if number is None else f' {number}'}; saved: {kept or 'none'}")
    number = kept[-1] if number is None else number
    rows = questions.load_forget(config.data) if unlearning else finetune_rows(config)
    checkpoint = load_checkpoint(config) if unlearning else start_checkpoint(config, rows)
    recipe, state, _ = saved_state(checkpoint, config, len(rows), rounds, number)
    rounds.close()
    folder = pretrained.export(trained(checkpoint, recipe, state), output)
    console.print(f"exported round {number} to {folder}")
    return folder


def examples(work: Path, count: int = 3) -> list[dict[str, str]]:
    """Forget questions with the answer before, the answer now and the truth, spread over the forget set."""
    before, after = ([a for a in read_lines(work / "answers" / f"{when}.jsonl") if a["set"] == "forget"] for when in ("before", "after"))
    step = max(1, len(before) // count)
    picked = list(zip(before, after))[::step][:count]
    return [{"question": b["question"], "before": b["answer"], "after": a["answer"], "truth": b["truth"]} for b, a in picked]
