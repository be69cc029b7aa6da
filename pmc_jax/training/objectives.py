"""What a model is trained for: pure functions of the terms that a forward pass offers, and the table of them.

Notation: NLL is an example's sum of -log p over its labels. CE is the mean of -log p over the labels of a group in the
whole global batch. Definitions of the rivals follow their papers as open-unlearning implements them
(https://github.com/locuslab/open-unlearning), with means over the global batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pmc_jax.data.packing import FORGET, GROUPS, REFUSAL, RETAIN
from pmc_jax.training.forward import STATISTICS, Terms, sum_by_example

Hyper = Mapping[str, float]
Answers = Literal["sampled", "given", "none"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss, and what it needs. Hashable: it is a static argument of the compiled update.

    Attributes:
        loss: (terms of a micro-batch, hyperparameters by name) -> that micro-batch's share of the loss, a scalar. The
            shares of all micro-batches sum to the loss of the global batch: divide by the terms' counts, which are
            those of the global batch.
        hyper: names and default values of the hyperparameters.
        answers: which answers the forget rows carry. "sampled": the model's own, chosen each round. "given": those of
            the data. "none": there are no forget rows.
        retain: whether there are retain rows.
        reference: whether rows carry their NLL under the frozen start model.
        statistics: names in forward.STATISTICS.
        hidden_layer: the layer whose output is wanted at each label, counted from 0.

    Raises:
        ValueError: unknown `answers`, or an unknown statistic.
    """

    loss: Callable[[Terms, Hyper], jax.Array]
    hyper: tuple[tuple[str, float], ...] = ()
    answers: Answers = "given"
    retain: bool = True
    reference: bool = False
    statistics: tuple[str, ...] = ()
    hidden_layer: int | None = None

    def __post_init__(self):
        if self.answers not in get_args(Answers):
            raise ValueError(f"answers={self.answers!r}: choose one of {', '.join(get_args(Answers))}")
        for name in self.statistics:
            if name not in STATISTICS:
                raise ValueError(f"statistics: {name!r} is none of {', '.join(STATISTICS)}")


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


def mean_of_labels(terms: Terms, values_SA: jax.Array, group: int) -> jax.Array:
    """This micro-batch's share of the mean of `values_SA` over a group's labels; 0 where there are none."""
    sum_of_group = jnp.sum(jnp.where(terms.group_SA == group, values_SA, 0.0))
    return sum_of_group / terms.label_counts_G[GROUPS.index(group)]


def mean_of_examples(terms: Terms, values_SE: jax.Array, group: int) -> jax.Array:
    """This micro-batch's share of the mean of `values_SE` over a group's examples; 0 where there are none."""
    sum_of_group = jnp.sum(jnp.where(terms.group_SE == group, values_SE, 0.0))
    return sum_of_group / terms.example_counts_G[GROUPS.index(group)]


def sums_of_examples(terms: Terms, values_SA: jax.Array) -> jax.Array:
    """Each example's sum of its labels' values, [S, E]; over `terms.labels_SE` it is each example's mean."""
    return sum_by_example(values_SA, terms.group_SA, terms.example_SA, terms.group_SE.shape[1])


def mean_nll(terms: Terms, group: int) -> jax.Array:
    """This micro-batch's share of a group's CE."""
    return mean_of_labels(terms, -terms.log_probs_SA, group)


def collapse_loss(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE(chosen answer | forget question) + retain_weight * CE(retain answer | retain question)
    + refusal_weight * CE(refusal | forget question), each refusal weighted by `Row.weight`.

    Partial model collapse (Scholten et al., ICLR 2026), step 6, and its variant PMC-alignment. retain_weight is the
    paper's lambda; with refusal_weight 0 there is no refusal term.
    """
    loss = mean_nll(terms, FORGET) + hyper["retain_weight"] * mean_nll(terms, RETAIN)
    if hyper["refusal_weight"]:
        weighted = jnp.sum(jnp.where(terms.group_SE == REFUSAL, terms.weight_SE * terms.nll_SE, 0.0))
        loss += hyper["refusal_weight"] * weighted / terms.label_counts_G[GROUPS.index(REFUSAL)]
    return loss


def cross_entropy(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE of the FORGET group: fine-tuning on these rows."""
    return mean_nll(terms, FORGET)


def gradient_ascent(terms: Terms, hyper: Hyper) -> jax.Array:
    """-CE(forget) (Jang et al., 2023; the baseline of TOFU, Maini et al., 2024)."""
    return -mean_nll(terms, FORGET)


def gradient_difference(terms: Terms, hyper: Hyper) -> jax.Array:
    """-forget_weight * CE(forget) + retain_weight * CE(retain) (Liu et al., 2022; TOFU, Maini et al., 2024)."""
    return -hyper["forget_weight"] * mean_nll(terms, FORGET) + hyper["retain_weight"] * mean_nll(terms, RETAIN)


def retain_only(terms: Terms, hyper: Hyper) -> jax.Array:
    """CE(retain): the control that shows what further training alone does."""
    return mean_nll(terms, RETAIN)


def npo(terms: Terms, hyper: Hyper) -> jax.Array:
    """-(2 / beta) * mean over forget examples of log sigmoid(beta * (NLL - NLL_ref)) + retain_weight * CE(retain).

    Negative preference optimization (Zhang et al., 2024): NLL is summed over the answer, not divided by its length.
    """
    log_ratios_SE = jax.nn.log_sigmoid(hyper["beta"] * (terms.nll_SE - terms.reference_SE))
    forget = -2 / hyper["beta"] * mean_of_examples(terms, log_ratios_SE, FORGET)
    return forget + hyper["retain_weight"] * mean_nll(terms, RETAIN)


# By the name that `--config.method=` takes. A method outside the package: `method=module:attribute`.
OBJECTIVES: dict[str, Objective] = {
    "pmc": Objective(collapse_loss, hyper=(("retain_weight", 1.25), ("refusal_weight", 0.0)), answers="sampled"),
    "cross_entropy": Objective(cross_entropy, retain=False),
    "gradient_ascent": Objective(gradient_ascent, retain=False),
    "gradient_difference": Objective(gradient_difference, hyper=(("forget_weight", 1.0), ("retain_weight", 1.0))),
    "retain_only": Objective(retain_only, answers="none"),
    "npo": Objective(npo, hyper=(("beta", 0.1), ("retain_weight", 1.0)), reference=True),
}
