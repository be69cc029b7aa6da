"""Unlearning from Python: a checkpoint, the data and the settings in; the unlearned checkpoint and the history out."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import given, questions
from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.data.windows import TEXT
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.methods.own_answers import with_own_answers
from pmc_jax.methods.passages import windows_of
from pmc_jax.methods.rewards import resolve_reward
from pmc_jax.methods.settings import fitted, read_objective, read_rate, read_schedule, read_training
from pmc_jax.methods.sources import make_source
from pmc_jax.models.config import ModelConfig
from pmc_jax.models.pretrained import PretrainedModel, check_checkpoint
from pmc_jax.sampling.generate import say_once, text_of
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import fit
from pmc_jax.training.objectives.objective import hidden_layer, hyperparameters
from pmc_jax.training.position import Hooks
from pmc_jax.training.settings import check_length
from pmc_jax.training.state import with_remat
from pmc_jax.training.watch import UNSEEN, Watch


def unlearn(
    checkpoint: PretrainedModel,
    forget: list[Any],
    retain: list[dict[str, str]],
    config: ConfigDict | None = None,
    *,
    references: list[str] | None = None,
    rounds: RoundCheckpointer | None = None,
    clock: Clock | None = None,
    on_round: Callable[[dict[str, Any], list[dict[str, Any]], list[dict[str, float]]], None] | None = None,
    on_evaluate: Callable[[int, PretrainedModel], bool | None] | None = None,
    on_start: Callable[[int], None] | None = None,
    keep_start: bool = True,
    watch: Watch = UNSEEN,
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """Unlearn the forget questions, by partial model collapse or another method that `config.method` names.

    Args:
        checkpoint: from `load`.
        forget: questions, as texts or as dicts with "question". PMC does not look at answers; methods that learn from
            given answers need dicts with "answer". With `data.text_window` passages, as texts or as dicts with "text".
        retain: dicts with "question" and "answer"; the latter may be missing with `data.retain_answers` = "own". With
            `data.text_window` passages.
        config: from `pmc_jax.config.default()`. What its `model.*` and `mesh.*` say, `load` has decided already.
        references: the untouched model's greedy answers, where they are known already; for PMC.
        rounds: where each round is saved, and from where a run is resumed.
        clock: adds up seconds by phase.
        on_round: called after each round with its summary, what was sampled, and its updates' losses.
        on_evaluate: called every `evaluate.every` rounds with the round's number and the checkpoint as it is then. The
            last round's is the one returned, and left to the caller. False, as "not good enough", ends the run at the
            last round for which it returned True. With `evaluate.keep_best` it is called after the last round too, and
            the run ends with the last round for which it returned True, as "the best so far"; needs `rounds`.
        on_start: called with the number of the first round that is to be run.
        keep_start: False = the checkpoint's parameters are given away: one copy less in memory (`training.loop.fit`).
        watch: looks on: is told what was done in which time.

    Returns:
        The checkpoint with new parameters, and the history: one summary a round up to the one that is returned, those
        of earlier rounds included when resumed.

    Raises:
        UserError: the settings or the data do not fit.
    """
    config = settings.check(config if config is not None else settings.default())
    rows, retain = read_sides(checkpoint, forget, retain, config)
    config = fitted(config, len(rows))
    check_data(config, rows, retain)
    check_checkpoint(checkpoint)
    retain = with_own_answers(checkpoint, retain, config)
    if references is not None and len(references) != len(rows):
        raise UserError(f"references: {len(references)} texts for {len(rows)} forget questions; give one for each")
    check_length(config.train.max_length, checkpoint.config.ropes)
    checkpoint = with_remat(checkpoint, config.train.remat)
    if config.evaluate.keep_best and (rounds is None or on_evaluate is None):
        raise UserError("evaluate.keep_best: needs rounds=RoundCheckpointer(folder), and on_evaluate, the judge")
    source = make_source(checkpoint, config, rows, retain, references)
    hooks, training = Hooks(on_start, on_round, on_evaluate, watch), read_training(config)
    tell_fitted(config, source.updates_per_epoch, checkpoint.config)
    return fit(checkpoint, source, training, rounds=rounds, clock=clock, hooks=hooks, keep_start=keep_start)


def tell_fitted(config: ConfigDict, updates: int, model: ModelConfig) -> None:
    """Say what came of settings that look at the data or the model. updates: of an epoch."""
    train = config.train
    if train.updates or train.rate_width or train.rate_layers:
        rate, epochs = read_rate(config, model), train.epochs
        say_once(f"unlearn: {epochs} epochs, {epochs * updates} updates in all, peak rate {rate:g}")


def read_sides(
    checkpoint: PretrainedModel, forget: Any, retain: Any, config: ConfigDict
) -> tuple[questions.Rows, questions.Rows]:
    """Forget and retain rows as they were given, checked; passages of raw text are cut into windows."""
    is_text = bool(config.data.text_window)
    rows = given.rows(forget, "forget", text_key=TEXT if is_text else "question")
    retain = given.rows(retain, "retain", text_key=TEXT if is_text else "")
    if is_text:
        check_checkpoint(checkpoint)
        rows, retain = (windows_of(side, checkpoint.tokenizer, config) for side in (rows, retain))
    questions.check_rows(rows, "forget", ("question",))
    questions.check_texts(rows, "forget", ("answer", *questions.PARAPHRASED))
    questions.check_rows(retain, "retain", questions.retain_fields(config.data))
    return rows, retain


def check_data(config: ConfigDict, forget: list[dict[str, str]], retain: list[dict[str, str]]) -> None:
    """UserError when the data cannot fill what the settings ask for, or the settings name what is not there.

    config: as `fitted` makes it.
    """
    objective, _ = read_objective(config)
    if objective.answers == "sampled":
        resolve_reward(config.pmc.reward)
    sizes = {"train.batch_size": config.train.batch_size}
    if objective.answers == "sampled":
        sizes["pmc.questions_per_round"] = config.pmc.questions_per_round
    count = read_schedule(config, len(forget)).questions
    prefixed = ", those with a prefix included" if count > len(forget) else ""
    for name, value in sizes.items():
        if value > count:
            raise UserError(
                f"{name}={value}: there are only {count} forget questions{prefixed}; choose at most {count}"
            )
    if not retain:
        raise UserError("the retain data has no rows")
    note = questions.check_sets(config.data, forget, {"retain": retain})
    if note and multihost.is_primary():
        say_once(note)
    if objective.answers == "given":
        unanswered = [number for number, row in enumerate(forget, 1) if not row.get("answer")]
        if unanswered:
            raise UserError(
                f"method={config.method!r} learns from the answers of the forget data, and {len(unanswered)} of its "
                f"{len(forget)} questions have none, the first in row {unanswered[0]}; add them, or use method=pmc"
            )


def check_inputs(
    checkpoint: PretrainedModel, config: ConfigDict, forget: list[dict[str, str]], retain: list[dict[str, str]]
) -> None:
    """UserError for rows or prompts that are too long, or a layer that the model does not have: they would end a run
    after the model was evaluated.
    """
    check_length(config.train.max_length, checkpoint.config.ropes)
    objective, overrides = read_objective(config)
    layer, layers = hidden_layer(objective, hyperparameters(objective, overrides)), checkpoint.config.num_layers
    if layer is not None and not 0 <= layer < layers:
        raise UserError(
            f"method={config.method!r} looks at layer {layer}; the model has layers 0 to {layers - 1}; choose one with "
            "method_options=layer=N"
        )
    text = text_of(checkpoint, config)
    for name, rows in {"forget": forget, "retain": retain}.items():
        for number, row in enumerate(rows, 1):
            try:
                training_row(text, row["question"], "", config.train.max_length, group=FORGET)
            except UserError as error:
                raise UserError(f"{name} row {number}: {error}") from None
