"""Statistics of the logits where a label is predicted, by the names that an objective asks for."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

Hyper = Mapping[str, float]


class LabelLogits(NamedTuple):
    """What the labels of a chunk are predicted by. C labels, V vocabulary.

    Attributes:
        logits_CV: float32.
        labels_C: int32, token ids.
        start_CV: the same logits of the start model, for statistics that compare with it; otherwise None.
    """

    logits_CV: jax.Array
    labels_C: jax.Array
    start_CV: jax.Array | None = None


class Statistic(NamedTuple):
    """A number at each label.

    Attributes:
        function: (logits of labels, hyperparameters of the objective) -> float32 [C].
        compares: whether it looks at the start model's logits.
    """

    function: Callable[[LabelLogits, Hyper], jax.Array]
    compares: bool = False


def entropy(seen: LabelLogits, hyper: Hyper) -> jax.Array:
    """-sum p log p over the vocabulary, in nats."""
    log_probs_CV = jax.nn.log_softmax(seen.logits_CV, axis=-1)
    return -jnp.sum(jnp.exp(log_probs_CV) * log_probs_CV, axis=-1)


def cross_entropy(target_CV: jax.Array, logits_CV: jax.Array) -> jax.Array:
    """-sum softmax(target) log softmax(logits) over the vocabulary; no gradient goes to the target."""
    probs_CV = jax.lax.stop_gradient(jax.nn.softmax(target_CV, axis=-1))
    return -jnp.sum(probs_CV * jax.nn.log_softmax(logits_CV, axis=-1), axis=-1)


def kl_from_uniform(seen: LabelLogits, hyper: Hyper) -> jax.Array:
    """KL(uniform || p), in nats."""
    return -jnp.mean(jax.nn.log_softmax(seen.logits_CV, axis=-1), axis=-1) - jnp.log(seen.logits_CV.shape[-1])


def kl_from_start(seen: LabelLogits, hyper: Hyper) -> jax.Array:
    """T^2 * KL(p_start || p) of the distributions at temperature T, the hyperparameter `temperature` (1 without)."""
    temperature = hyper.get("temperature", 1.0)
    start_CV = jax.nn.log_softmax(seen.start_CV / temperature, axis=-1)
    log_probs_CV = jax.nn.log_softmax(seen.logits_CV / temperature, axis=-1)
    return temperature**2 * jnp.sum(jnp.exp(start_CV) * (start_CV - log_probs_CV), axis=-1)


def without_label(seen: LabelLogits, hyper: Hyper) -> jax.Array:
    """Cross-entropy with the model's own distribution from which the label is taken out (CE-U)."""
    is_label_CV = jax.nn.one_hot(seen.labels_C, seen.logits_CV.shape[-1], dtype=bool)
    return cross_entropy(jnp.where(is_label_CV, -jnp.inf, seen.logits_CV), seen.logits_CV)


def lowered_label(seen: LabelLogits, hyper: Hyper) -> jax.Array:
    """Cross-entropy with the start model's distribution, its logit of the label lowered by `beta` (UNDIAL)."""
    lowered_CV = seen.start_CV - hyper["beta"] * jax.nn.one_hot(seen.labels_C, seen.start_CV.shape[-1])
    return cross_entropy(lowered_CV, seen.logits_CV)


STATISTICS: dict[str, Statistic] = {
    "max": Statistic(lambda seen, hyper: jnp.max(seen.logits_CV, axis=-1)),
    "mean": Statistic(lambda seen, hyper: jnp.mean(seen.logits_CV, axis=-1)),
    "entropy": Statistic(entropy),
    "kl_from_uniform": Statistic(kl_from_uniform),
    "without_label": Statistic(without_label),
    "kl_from_start": Statistic(kl_from_start, compares=True),
    "lowered_label": Statistic(lowered_label, compares=True),
}
