"""What an objective is, and what it needs."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax

from pmc_jax.training.forward import Terms, Wanted
from pmc_jax.training.statistics import STATISTICS, Hyper

Answers = Literal["sampled", "given", "none"]
Alternates = Literal["none", "refusals", "own"]


class Moment(NamedTuple):
    """Where a run is when hyperparameters move.

    Attributes:
        forget_loss: mean of -log p over the forget labels of the batch, before the update.
        retain_loss: the same of the retain labels.
        epoch: epochs that are done, with the part of the current one.
    """

    forget_loss: jax.Array
    retain_loss: jax.Array
    epoch: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss, and what it needs. Hashable: it is a static argument of the compiled update.

    "The start model" is the model as it was before the first update.

    Attributes:
        loss: (terms of a micro-batch, hyperparameters by name) -> that micro-batch's share of the loss, a scalar. The
            shares of all micro-batches sum to the loss of the global batch: divide by the terms' counts, which are
            those of the global batch.
        hyper: names and default values of the hyperparameters. Some names mean the same everywhere: with
            `retain_weight` and `kl_weight` both 0 there are no retain rows; a `kl_weight` other than 0 gives
            `terms.statistics["kl_from_start"]`; `layer` is the hidden layer; `seed` follows the run's.
        answers: which answers the forget rows carry. "sampled": the model's own, chosen each round. "given": those of
            the data. "none": there are no forget rows.
        alternates: which other answer to its question each forget example brings along, in group REFUSAL. "refusals":
            one that is drawn anew each epoch. "own": what the start model makes up when it is told to; then each
            question has several examples. Where there are forget rows too, the two are a pair (`terms.pair_SE`).
        retain: whether there are retain rows.
        reference: whether forget rows and alternates carry their NLL under the start model.
        statistics: names in statistics.STATISTICS.
        hidden_layer: the layer whose output is wanted at each label, counted from 0.
        start_hidden: whether the start model's output of that layer is wanted too.
        moving: hyperparameters that change from update to update; their values are saved with the state.
        move: (hyperparameters, moment) -> the next values of those.
        in_turns: an epoch is a pass over the forget rows, in the first `forget_epochs` epochs, and then one over all
            retain rows. Otherwise each forget example brings one retain row along.
        negated: the result is not the trained model but start - `scale` * (trained - start).

    Raises:
        ValueError: unknown `answers` or `alternates`, an unknown statistic, or a moving name that is none of `hyper`.
    """

    loss: Callable[[Terms, Hyper], jax.Array]
    hyper: tuple[tuple[str, float], ...] = ()
    answers: Answers = "given"
    alternates: Alternates = "none"
    retain: bool = True
    reference: bool = False
    statistics: tuple[str, ...] = ()
    hidden_layer: int | None = None
    start_hidden: bool = False
    moving: tuple[str, ...] = ()
    move: Callable[[Hyper, Moment], dict[str, jax.Array]] | None = None
    in_turns: bool = False
    negated: bool = False

    def __post_init__(self):
        for name, choices in {"answers": Answers, "alternates": Alternates}.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(get_args(choices))}")
        for name in self.statistics:
            if name not in STATISTICS:
                raise ValueError(f"statistics: {name!r} is none of {', '.join(STATISTICS)}")
        for name in self.moving:
            if name not in dict(self.hyper):
                raise ValueError(f"moving: {name!r} is none of the hyperparameters")


def hyperparameters(objective: Objective, overrides: tuple[tuple[str, float], ...] = ()) -> dict[str, float]:
    """The objective's hyperparameters by name, with other values for some.

    Raises:
        ValueError: an override that the objective does not have.
    """
    defaults = dict(objective.hyper)
    for name, _ in overrides:
        if name not in defaults:
            raise ValueError(f"the objective has no hyperparameter {name!r}; it has {', '.join(defaults) or 'none'}")
    return defaults | dict(overrides)


def has_retain_rows(objective: Objective, hyper: Hyper) -> bool:
    """Whether any term looks at retain rows."""
    weights = [hyper[name] for name in ("retain_weight", "kl_weight") if name in hyper]
    return objective.retain and (any(weights) or not weights)


def statistics(objective: Objective, hyper: Hyper) -> tuple[str, ...]:
    """The statistics that the objective asks for with these hyperparameters."""
    return tuple(dict.fromkeys(objective.statistics + (("kl_from_start",) if hyper.get("kl_weight") else ())))


def needs_start(objective: Objective, hyper: Hyper) -> bool:
    """Whether each update reads the start model's parameters."""
    return objective.start_hidden or any(STATISTICS[name].compares for name in statistics(objective, hyper))


def hidden_layer(objective: Objective, hyper: Hyper) -> int | None:
    """The layer whose output is wanted; None where there is no such wish."""
    return int(hyper["layer"]) if "layer" in hyper else objective.hidden_layer


def wanted(objective: Objective, hyper: Hyper, start: Any = None) -> Wanted:
    """What a forward pass is asked for. start: parameters of the start model; not looked at where they are not needed.

    Raises:
        ValueError: they are needed, and there are none.
    """
    compares = needs_start(objective, hyper)
    if compares and start is None:
        raise ValueError("the objective compares with the start model, whose parameters are not given")
    layer = hidden_layer(objective, hyper)
    return Wanted(statistics(objective, hyper), hyper, layer, start if compares else None)
