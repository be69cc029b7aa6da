"""The ConfigDict -> the small records that the training loop and the methods take. They never see the ConfigDict."""

from ml_collections import ConfigDict

from pmc_jax import registry
from pmc_jax.config import changed
from pmc_jax.data.refusals import load_refusals
from pmc_jax.errors import UserError
from pmc_jax.methods.guard import Guard
from pmc_jax.methods.pmc import PmcSettings
from pmc_jax.methods.prefixes import Prefixes
from pmc_jax.methods.schedule import Schedule
from pmc_jax.models.config import ModelConfig
from pmc_jax.sampling.generate import longest_greedy
from pmc_jax.training.batching import BatchSettings
from pmc_jax.training.objectives import OBJECTIVES, Objective, hyperparameters
from pmc_jax.training.settings import AdapterSettings, ModelSize, TrainSettings, peak_rate, size_of, updates_per_epoch


def read_objective(config: ConfigDict) -> tuple[Objective, tuple[tuple[str, float], ...]]:
    """The objective that `method` names, and its hyperparameters in `method_options`.

    `pmc.retain_weight` is PMC's lambda, `pmc.refusal_weight` the weight of PMC-alignment. The weight of a rival's
    retain term is an option of the method.

    Raises:
        UserError: there is no such objective, it is none, or an option is none of its hyperparameters.
    """
    objective = registry.resolve("method", config.method, OBJECTIVES)
    if not isinstance(objective, Objective):
        raise UserError(f"method={config.method!r}: must name a pmc_jax.training.objectives.Objective")
    options = read_options(config.method_options)
    if objective.answers == "sampled":
        weights = {name: config.pmc[name] for name in ("retain_weight", "kl_weight", "refusal_weight")}
        options = {name: value for name, value in weights.items() if name in dict(objective.hyper)} | options
    if "seed" in dict(objective.hyper):
        options = {"seed": config.seed} | options
    overrides = tuple(options.items())
    try:
        hyperparameters(objective, overrides)
    except ValueError as error:
        raise UserError(f"method_options={config.method_options!r}: {error}") from None
    return objective, overrides


def read_options(text: str) -> dict[str, float]:
    """The numbers in "beta=0.1,alpha=2", by name. UserError where it is written otherwise."""
    options = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            options[name.strip()] = float(value)
        except ValueError:
            raise UserError(
                f"method_options={text!r}: {part.strip()!r} is not NAME=NUMBER; write such as beta=0.1,alpha=2"
            ) from None
    return options


def read_adapters(config: ConfigDict) -> AdapterSettings:
    """The settings of adapters."""
    return AdapterSettings(config.lora.rank, config.lora.alpha, config.lora.targets)


def read_tuned_on(config: ConfigDict) -> ModelSize:
    """The size of a model that the learning rate is for."""
    return ModelSize(config.train.rate_width, config.train.rate_layers)


def read_rate(config: ConfigDict, model: ModelConfig) -> float:
    """The peak learning rate for a model."""
    return peak_rate(config.train.learning_rate, read_tuned_on(config), size_of(model))


def read_batch(config: ConfigDict) -> BatchSettings:
    """How rows are dealt to updates."""
    return BatchSettings(config.train.batch_size, config.train.accumulate, config.seed)


def read_training(config: ConfigDict) -> TrainSettings:
    """The settings of training, with the method's objective."""
    t = config.train
    objective, overrides = read_objective(config)
    return TrainSettings(
        objective=objective,
        hyper=overrides,
        batch=read_batch(config),
        adapters=read_adapters(config),
        epochs=t.epochs,
        warmup_epochs=t.warmup_epochs,
        optimizer=t.optimizer,
        moment_dtype=t.moment_dtype,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        interpolation=t.interpolation,
        grad_clip=t.grad_clip,
        compute_dtype=config.model.compute_dtype,
        max_length=t.max_length,
        seed=config.seed,
        save_every=config.rounds.every,
        save_minutes=config.rounds.minutes,
        evaluate_every=config.evaluate.every,
        gather_once=t.gather_once,
        tuned_on=read_tuned_on(config),
        keep_best=config.evaluate.keep_best,
    )


def fitted(config: ConfigDict, questions: int) -> ConfigDict:
    """The settings for so many forget questions: as they are, or with the epochs and the batch that `train.updates`
    asks for.
    """
    least = config.train.updates
    if not least:
        return config
    schedule = read_schedule(config, questions)
    batch = min(config.train.batch_size, schedule.questions)
    each = updates_per_epoch(schedule.questions, schedule.round_size, batch)
    epochs = max(config.train.epochs, -(-least // each))
    return changed(config, {"train.batch_size": batch, "train.epochs": epochs})


def read_schedule(config: ConfigDict, questions: int) -> Schedule:
    """Which questions a round has: as many as PMC samples at a time, or an epoch's where nothing is sampled.

    Args:
        config: as `fitted` makes it.
        questions: of the forget data. Those with a prefix of the answer are counted besides.
    """
    epochs, seed = config.train.epochs, config.seed
    if read_objective(config)[0].answers != "sampled":
        return Schedule(questions, 0, epochs, seed)
    return Schedule(questions * (1 + config.pmc.prefix_rows), config.pmc.questions_per_round, epochs, seed)


def read_pmc(config: ConfigDict) -> PmcSettings:
    """The settings of PMC itself."""
    p = config.pmc
    refusals = load_refusals(p.refusals) if p.refusal_weight else ()
    return PmcSettings(
        reward=p.reward,
        guard=Guard(p.min_words, p.refusal_margin if refusals else 0.0, refusals),
        refusals=refusals,
        retain_rows=p.retain_rows,
        selection=p.selection,
        selection_temperature=p.selection_temperature,
        keep_best=p.keep_best,
        skip_solved=p.skip_solved,
        stop_solved=p.stop_solved,
        prune_candidates=p.prune_candidates,
        measure_every=p.measure_every,
        batch_size=config.train.batch_size,
        max_length=config.train.max_length,
        reference_tokens=longest_greedy(config),
        prefixes=Prefixes(p.prefix_rows, p.prefix_low, p.prefix_high),
    )
