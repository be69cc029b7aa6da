"""The verb `unlearn`: evaluate, unlearn, evaluate, export, all in a workdir."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.data.refusals import load_refusals
from pmc_jax.distributed import multihost
from pmc_jax.evaluate.answers import Evaluation, evaluate
from pmc_jax.evaluate.fluency import kinds_of_answers, with_perplexity
from pmc_jax.evaluate.recall import check_truths_seen
from pmc_jax.methods import unlearn as method
from pmc_jax.methods.own_answers import with_own_answers
from pmc_jax.methods.passages import load_sides
from pmc_jax.methods.settings import fitted, read_schedule
from pmc_jax.models import pretrained
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.runs.console import console, print_finished, print_result
from pmc_jax.runs.export import adopt_export
from pmc_jax.runs.kept_round import KeptRound, read_bounds
from pmc_jax.runs.load import load_checkpoint
from pmc_jax.runs.report import write_page
from pmc_jax.runs.start import claim, read_data
from pmc_jax.runs.topic import is_to_be_written, keep_data, with_own_data, write_data
from pmc_jax.runs.watch import RunWatch, profiled_rounds
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import read_json, read_lines, write_json, write_lines
from pmc_jax.tracking.recorder import recording
from pmc_jax.tracking.timing import Clock
from pmc_jax.tracking.workdir import Workdir, data_hash, started_with, versions
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
    sampler = greedy_sampler(checkpoint, config)
    return evaluate(sampler, sets, references, f"evaluate {what}", show, config.evaluate.score)


def judged(evaluation: Evaluation, original: PretrainedModel, config: ConfigDict) -> Evaluation:
    """The evaluation, with the perplexity of its forget answers under the original model."""
    judge = greedy_sampler(original, config)
    return evaluation._replace(answers=with_perplexity(evaluation.answers, judge, "fluency of forget answers"))


def kinds(after: Evaluation, before: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """What the forget answers are now: refusals, fluent, or neither. {} where an old run did not measure fluency."""
    if "forget_perplexity" not in before:
        return {}
    forget = [row for row in after.answers if row["set"] == "forget"]
    answers, perplexities = ([row[key] for row in forget] for key in ("answer", "perplexity"))
    own, refusals = before["forget_perplexity"]["median"], load_refusals(config.pmc.refusals)
    return {"forget_answers": kinds_of_answers(answers, perplexities, own, refusals)}


def original_model(checkpoint: PretrainedModel, config: ConfigDict) -> PretrainedModel:
    """The checkpoint that a run began with: read anew where its parameters were given away to the training."""
    given_away = any(array.is_deleted() for array in jax.tree.leaves(checkpoint.params))
    return load_checkpoint(config) if given_away else checkpoint


def before_and_references(
    work: Workdir, checkpoint: PretrainedModel, config: ConfigDict, sets: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The original model's evaluation and its answers to the forget questions.

    They come from disk when an earlier start of this run has them.
    """
    kept = multihost.broadcast_from_primary(lambda: read_json(work.path / "before.json"))
    if kept is None:
        before = judged(evaluate_on(checkpoint, config, sets, None, "before"), checkpoint, config)
        write_lines(work.file("answers/before.jsonl"), before.answers)
        references = [a["answer"] for a in before.answers if a["set"] == "forget"]
        kept = {"summary": before.summary(), "references": references}
        write_json(work.file("before.json"), kept)
    return kept["summary"], kept["references"]


class Data(NamedTuple):
    """The rows of a run.

    Attributes:
        forget: rows to forget.
        retain: rows that must stay.
        sets: rows that are evaluated, by the set's name.
        hashes: of all of these, by name.
    """

    forget: questions.Rows
    retain: questions.Rows
    sets: dict[str, questions.Rows]
    hashes: dict[str, str]


def load_data(config: ConfigDict, written: dict[str, questions.Rows] | None = None) -> Data:
    """The rows that the settings name, or those that the model has just written. UserError where they cannot fill what
    the settings ask for.
    """
    data, count, seed = config.data, config.evaluate.retain_rows, config.seed
    if written:
        forget, retain = written["forget"], written["retain"]
    else:
        forget, retain = load_sides(config)
    method.check_data(fitted(config, len(forget)), forget, retain)
    if written:
        sets = questions.evaluation_sets(data, written, forget, count, seed)
    else:
        sets = questions.load_evaluation(data, forget, retain, count, seed)
    check_truths_seen(config.evaluate.score, sets)
    hashes = {name: data_hash(rows) for name, rows in (sets | {"forget": forget, "retain": retain}).items()}
    return Data(forget, retain, sets, hashes)


def count_rounds(config: ConfigDict, data: Data) -> int:
    """How many rounds the run has."""
    questions = len(data.forget)
    return read_schedule(fitted(config, questions), questions).rounds


def own_data(
    work: Workdir, config: ConfigDict
) -> tuple[ConfigDict, PretrainedModel | None, dict[str, questions.Rows] | None]:
    """What a topic in the settings means: those that name the workdir's data, and the checkpoint and the sets that it
    has written, where they are not there yet; else None for both.
    """
    own = with_own_data(config, work)
    if not is_to_be_written(config, work):
        return own, None, None
    checkpoint = load_checkpoint(config)
    return own, checkpoint, write_data(checkpoint, config)


def with_retain_answers(work: Workdir, checkpoint: PretrainedModel, config: ConfigDict, data: Data) -> Data:
    """The data, its retain questions answered by the original model where they have no answer.

    The answers come from disk when an earlier start of this run has them.
    """
    if all(map(questions.is_answered, data.retain)):
        return data
    kept = multihost.broadcast_from_primary(lambda: read_json(work.path / "retain.json"))
    if kept is None:
        kept = with_own_answers(checkpoint, data.retain, config)
        write_json(work.file("retain.json"), kept)
    answers = {row["question"]: row["answer"] for row in kept}
    shown = [row | {"answer": answers.get(row["question"], "")} for row in data.sets["retain"]]
    return data._replace(retain=kept, sets=data.sets | {"retain": shown})


def unlearn(
    config: ConfigDict, workdir: str, profile: str = "", prepare: Callable[[Workdir], None] = lambda work: None
) -> dict[str, Any]:
    """Evaluate, unlearn, evaluate, export, all in a workdir; go on where the same command was stopped.

    Args:
        config: all settings.
        workdir: the folder of the run; made when absent.
        profile: rounds whose traces are written, such as "2,3".
        prepare: called with the folder once it is this run's, and nothing is computed yet.

    Returns:
        What result.json holds.

    Raises:
        UserError: the settings, the data or the folder do not fit.
    """
    config = settings.with_whole_paths(settings.check(config))
    with Workdir(workdir) as work, Clock() as clock:
        with clock.phase("load"):
            pretrained.check_path(config.model.path)  # before the data, which may have to come from the hub
            config, checkpoint, written = own_data(work, config)
            data = read_data(work, config, lambda: load_data(config, written), lambda data: data.hashes)
            profiled = profiled_rounds(profile, count_rounds(config, data)) if data else frozenset()
            started = started_with("unlearn", config, data and data.hashes)
            finished = multihost.broadcast_from_primary(lambda: work.finished(started))
            if finished:
                write_page(work, again=False)
                print_finished(work)
                return finished
            checkpoint = checkpoint or load_checkpoint(config)
            method.check_inputs(checkpoint, config, data.forget, data.retain)
            claim(work, started)
            keep_data(work, written or {})
            prepare(work)
            rounds = RoundCheckpointer(work.file("rounds"), config.rounds.keep)
        with clock.phase("evaluate"):
            data = with_retain_answers(work, checkpoint, config, data)
            before, references = before_and_references(work, checkpoint, config, data.sets)
        kept = KeptRound(read_bounds(config, before))
        unlearned, history = run_rounds(work, checkpoint, config, data, references, kept, rounds, clock, profiled)
        with clock.phase("evaluate"):
            after = evaluate_on(unlearned, config, data.sets, references, "after")
            write_lines(work.file("answers/after.jsonl"), after.answers)
        with clock.phase("save"):
            rounds.close()
            adopt_export(work.path / "hf")
            pretrained.export(unlearned, work.path / "hf")
        del unlearned  # one model in memory
        with clock.phase("evaluate"):
            after = judged(after, original_model(checkpoint, config), config)
            write_lines(work.file("answers/after.jsonl"), after.answers)
        sides = {"before": before, "after": after.summary() | kinds(after, before, config)}
        seconds = {"seconds": clock.seconds | {"total": clock.total()}}
        outcome = totals(history) | kept.told(len(history) - 1)
        result = sides | seconds | outcome | {"data": data.hashes, "versions": versions()}
        write_json(work.file("result.json"), result)
    write_page(work)
    print_result(work, result)
    return result


def totals(history: list[dict[str, Any]]) -> dict[str, Any]:
    """What result.json says of all rounds together, and of all samples, where a method samples.

    Args:
        history: one summary a round, up to the one that is exported.
    """
    last, told = history[-1], {"rounds": len(history)}
    if "sampled_tokens" in last:
        sampled_tokens = sum(h["sampled_tokens"] for h in history)
        told |= {"sampled_tokens": sampled_tokens, "solved": last["solved"], "stored_score": last["stored_score"]}
    return told


def run_rounds(
    work: Workdir,
    checkpoint: PretrainedModel,
    config: ConfigDict,
    data: Data,
    references: list[str],
    kept: KeptRound,
    rounds: RoundCheckpointer,
    clock: Clock,
    profiled: frozenset[int],
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """The rounds from the first that is not saved on, each written down in the workdir.

    Returns:
        The unlearned model as the kept round left it, and its history.
    """
    total = count_rounds(config, data)
    watch = RunWatch(checkpoint, work.path / "profile", profiled)
    with recording(work, total, config.log.samples) as recorder:

        def on_start(first: int) -> None:
            if first:
                console.print(f"{work.path}: continues with round {first}; {first} of {total} rounds are done")
            recorder.begin(first)
            kept.recall(multihost.broadcast_from_primary(lambda: read_lines(work.path / "metrics.jsonl")))

        def on_evaluate(number: int, unlearned: PretrainedModel) -> bool | None:
            after = evaluate_on(unlearned, config, data.sets, references, f"after round {number}", show=False).summary()
            recorder.write_evaluation(number, after)
            return kept.judge(number, after)

        unlearned, history = method.unlearn(
            checkpoint,
            data.forget,
            data.retain,
            config,
            references=references,
            rounds=rounds,
            clock=clock,
            on_round=lambda *round_told: recorder.write_round(*round_told, watch.speed),
            watch=watch,
            on_evaluate=on_evaluate,
            keep_start=False,
            on_start=on_start,
        )
    if len(history) < total and not kept.told(len(history) - 1):
        ends = f"the run ends after {len(history)} of {total} rounds"
        console.print(f"nine of ten questions are solved, and their answers learnt: {ends}")
    for line in kept.lines(len(history) - 1):
        console.print(line, style="bold")
    return unlearned, history
