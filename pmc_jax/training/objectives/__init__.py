"""What a model is trained for: pure functions of the terms that a forward pass offers, and the table of them.

Notation: NLL is an example's sum of -log p over its labels. CE is the mean of -log p over the labels of a group in the
whole global batch. "Retain term" is `means.retain_term`: CE, KL from the start model, or both, each with its weight.
Definitions of the rivals follow their papers as open-unlearning implements them
(https://github.com/locuslab/open-unlearning), with means over the labels of the global batch.
"""

from pmc_jax.training.objectives.distribution import (
    ceu,
    maximum_entropy,
    pdu,
    raise_multiplier,
    scrub,
    undial,
)
from pmc_jax.training.objectives.likelihood import (
    collapse_loss,
    cross_entropy,
    gradient_ascent,
    gradient_difference,
    idk,
    retain_only,
    satimp,
    wga,
)
from pmc_jax.training.objectives.means import (
    mean_nll,
    mean_of_examples,
    mean_of_labels,
    means_of_examples,
    of_pair,
    retain_term,
    sums_of_examples,
)
from pmc_jax.training.objectives.objective import Hyper, Moment, Objective, hyperparameters
from pmc_jax.training.objectives.preference import dpo, npo, simnpo
from pmc_jax.training.objectives.representation import rmu

__all__ = [
    "OBJECTIVES",
    "Hyper",
    "Moment",
    "Objective",
    "hyperparameters",
    "mean_nll",
    "mean_of_examples",
    "mean_of_labels",
    "means_of_examples",
    "of_pair",
    "retain_term",
    "sums_of_examples",
    "weights",
]


def weights(forget: float = 1.0, retain: float = 1.0, kl: float = 0.0) -> tuple[tuple[str, float], ...]:
    """The weights that every rival has: of the forget term, and of the two kinds of retain term."""
    return ("forget_weight", forget), ("retain_weight", retain), ("kl_weight", kl)


# By the name that `--config.method=` takes. A method outside the package: `method=module:attribute`.
OBJECTIVES: dict[str, Objective] = {
    "pmc": Objective(
        collapse_loss,
        hyper=(("retain_weight", 1.25), ("kl_weight", 0.0), ("refusal_weight", 0.0)),
        answers="sampled",
    ),
    "cross_entropy": Objective(cross_entropy, retain=False),
    "gradient_ascent": Objective(gradient_ascent, retain=False),
    "gradient_difference": Objective(gradient_difference, hyper=weights()),
    "retain_only": Objective(retain_only, answers="none"),
    "idk": Objective(idk, hyper=weights(), answers="none", alternates="refusals"),
    "dpo": Objective(dpo, hyper=(("beta", 0.1), *weights()), alternates="refusals", reference=True),
    "npo": Objective(npo, hyper=(("beta", 0.1), *weights()), reference=True),
    "simnpo": Objective(simnpo, hyper=(("beta", 4.5), ("delta", 0.0), *weights(forget=0.125))),
    "wga": Objective(wga, hyper=(("beta", 1.0), *weights())),
    "satimp": Objective(satimp, hyper=(("beta1", 5.0), ("beta2", 1.0), *weights(retain=0.1))),
    "maximum_entropy": Objective(maximum_entropy, hyper=weights(), statistics=("kl_from_uniform",)),
    "ceu": Objective(ceu, hyper=weights(retain=0.0), statistics=("without_label",)),
    "undial": Objective(undial, hyper=(("beta", 10.0), *weights(retain=0.0)), statistics=("lowered_label",)),
    "rmu": Objective(
        rmu,
        hyper=(("layer", 7), ("steering", 2.0), ("forget_weight", 1.0), ("retain_weight", 1.0), ("seed", 0)),
        start_hidden=True,
    ),
    "pdu": Objective(
        pdu,
        hyper=(("forget_weight", 1.0), ("multiplier", 100.0), ("step", 5.0), ("allowed", 0.3), ("warmup_epochs", 5)),
        statistics=("max", "mean"),
        moving=("multiplier",),
        move=raise_multiplier,
    ),
    "altpo": Objective(dpo, hyper=(("beta", 0.1), *weights()), alternates="own", reference=True),
    "scrub": Objective(
        scrub,
        hyper=(("temperature", 4.0), ("forget_epochs", 2), *weights(retain=0.99, kl=0.001)),
        statistics=("kl_from_start",),
        in_turns=True,
    ),
    "task_vector": Objective(cross_entropy, hyper=(("scale", 5.0),), retain=False, negated=True),
}
