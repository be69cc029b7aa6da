"""Unlearn quality and utility (arXiv 2507.04219) from the recalls of the five sets' answers; numpy alone."""

from typing import Any

import numpy as np

from pmc_jax.evaluate.interval import mean_with_interval, middle, resampled_means

# Set -> seed of its resamples: a forget row and its paraphrase, which ask for the same secret, are drawn together, the
# other sets apart.
SETS = {"forget": 0, "forget_paraphrased": 0, "retain": 1, "world_facts": 2, "real_authors": 3}
KEEP = ("retain", "world_facts", "real_authors")


def unlearn_quality(recall: dict[str, Any]) -> Any:
    """50 * (2 - R(forget) - R(forget paraphrased)), 0..100; 100 * (1 - R(forget)) where there are no paraphrases.

    Args:
        recall: mean recall R by set, numbers or arrays of them; None where not evaluated. None without the forget set.
    """
    forget, paraphrased = recall["forget"], recall["forget_paraphrased"]
    if forget is None:
        return None
    return 100 * (1 - forget) if paraphrased is None else 50 * (2 - forget - paraphrased)


def utility(recall: dict[str, Any]) -> Any:
    """Mean of R(retain), R(world facts), R(real authors), 0..100, over the sets that were evaluated; None without."""
    known = [recall[name] for name in KEEP if recall[name] is not None]
    return 100 * sum(known) / len(known) if known else None


def summarise(recalls: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation.

    Args:
        recalls: the recall of each row, [N], by set; NaN rows are left out and not counted.

    Returns:
        {set: mean recall or None, "unlearn_quality", "utility", "rows": {set: rows}, "intervals": {name: (low, high)}}.
        Intervals are bootstrap 95 %, those of unlearn quality and utility over the rows of the sets that they combine;
        None where a set has one row only, or none.
    """
    arrays = {name: np.asarray(recalls[name], np.float64) for name in SETS if name in recalls}
    given = {name: known_N for name, values_N in arrays.items() if len(known_N := values_N[~np.isnan(values_N)])}
    means: dict[str, Any] = {name: float(given[name].mean()) if name in given else None for name in SETS}
    means_R = {name: resampled_means(given[name], seed) if name in given else None for name, seed in SETS.items()}
    with_intervals = {name: mean_with_interval(values, SETS[name]) for name, values in given.items()}
    intervals = {name: (i.low, i.high) if i.low is not None else None for name, i in with_intervals.items()}
    for name, combine in (("unlearn_quality", unlearn_quality), ("utility", utility)):
        means[name], combined_R = combine(means), combine(means_R)
        intervals[name] = middle(combined_R) if combined_R is not None else None
    return means | {"rows": {name: len(values) for name, values in given.items()}, "intervals": intervals}
