"""The source of a method's rows, from the checkpoint, the data and the settings."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data.packing import FORGET, REFUSAL, RETAIN, Row
from pmc_jax.data.prompts import training_row
from pmc_jax.data.questions import Rows
from pmc_jax.data.refusals import load_refusals
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import choose_compute_dtype
from pmc_jax.methods.alternates import MADE_UP, make_up, refusal_rows
from pmc_jax.methods.pmc import PmcSource
from pmc_jax.methods.settings import read_objective, read_pmc, read_schedule
from pmc_jax.methods.supervised import ExampleRows, MadeUp, SupervisedSource, TurnsSource
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import greedy_sampler, round_sampler, text_of
from pmc_jax.training.label_values import row_nll
from pmc_jax.training.objectives import hyperparameters
from pmc_jax.training.objectives.objective import has_retain_rows
from pmc_jax.training.source import Source


def make_source(
    checkpoint: PretrainedModel, config: ConfigDict, forget: Rows, retain: Rows, references: list[str] | None
) -> Source:
    """The source of the method's rows: one that samples answers, or one that has them."""
    objective, _ = read_objective(config)
    text, longest = text_of(checkpoint, config), config.train.max_length

    def training_rows(rows: Rows, group: int) -> list[Row]:
        return [training_row(text, row["question"], row["answer"], longest, group) for row in rows]

    if objective.answers == "sampled":
        schedule = read_schedule(config, len(forget))
        capacity = config.pmc.questions_per_round or schedule.questions
        # Each round has its own parameters: a copy laid out for decoding is most of a large model's memory.
        sampler = round_sampler(checkpoint, config, capacity)._replace(params=None)
        texts = [row["question"] for row in forget]
        return PmcSource(read_pmc(config), schedule, sampler, texts, training_rows(retain, RETAIN), references)
    return supervised_source(checkpoint, config, forget, retain, training_rows)


def supervised_source(
    checkpoint: PretrainedModel,
    config: ConfigDict,
    forget: Rows,
    retain: Rows,
    training_rows: Callable[[Rows, int], list[Row]],
) -> SupervisedSource:
    """The source of a method that trains on given answers. training_rows: (rows, group) -> their training rows."""
    objective, overrides = read_objective(config)
    hyper, batch_size = hyperparameters(objective, overrides), config.train.batch_size
    own = objective.alternates == "own"
    examples = [row for row in forget for _ in range(MADE_UP if own else 1)]
    schedule = read_schedule(config, len(examples))

    def alternate_rows(texts: list[str]) -> list[Row]:
        return training_rows([row | {"answer": text} for row, text in zip(examples, texts, strict=True)], REFUSAL)

    given = training_rows(forget, FORGET) if objective.answers == "given" else []
    rows = ExampleRows(
        [row for row in given for _ in range(len(examples) // len(forget))],
        training_rows(retain, RETAIN) if has_retain_rows(objective, hyper) else [],
    )
    if objective.in_turns:
        return TurnsSource(rows, schedule, batch_size, int(hyper["forget_epochs"]))
    made_up = None
    if objective.alternates == "refusals":

        def refusal_row(question: int, refusal: str) -> Row:
            return training_rows([examples[question] | {"answer": refusal}], REFUSAL)[0]

        rows = ExampleRows(*rows[:2], *refusal_rows(refusal_row, schedule, load_refusals(config.pmc.refusals)))
    elif own:
        each_epoch = np.tile(np.arange(len(examples)), (schedule.epochs, 1))
        rows = rows._replace(alternate_of=each_epoch)
        made_up = MadeUp(lambda: make_up(greedy_sampler(checkpoint, config), forget), alternate_rows)
    reference = None
    if objective.reference:
        dtype = choose_compute_dtype(config.model.compute_dtype, meshes.mesh_of(checkpoint.params))

        def reference(rows: list[Row]) -> list[float]:
            each_once = {id(row): row for row in rows}
            values = row_nll(checkpoint.model, checkpoint.params, list(each_once.values()), dtype).tolist()
            value_of = dict(zip(each_once, values))
            return [value_of[id(row)] for row in rows]

    return SupervisedSource(rows, schedule, batch_size, reference, made_up)
