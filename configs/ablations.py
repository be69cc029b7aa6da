"""One part of PMC varied, all else held: --config=ablations:lambda, or another key of ABLATIONS.

For small checkpoints that know tofu-mini by heart: --config.model.path=... --config.data.path=... (docs/comparing.md).
"""

from pmc_jax import config as settings
from pmc_jax.settings.comparison import Comparison, Row, with_comparison

# What is not varied.
HELD = {
    "sample.num_samples": 10,
    "sample.temperature": 1.4,
    "pmc.retain_weight": 1.25,
    "train.epochs": 15,
    "train.batch_size": 8,
    "train.learning_rate": 3e-4,
    "log.samples": False,
}
BRADLEY_TERRY = {"pmc.selection": "bradley_terry", "pmc.prune_candidates": False}
WHOLE = {"data.forget": "full", "train.batch_size": 4}  # the smallest forget set has four rows


REWARDS = (
    *("rouge_l_recall", "rouge_l_f1", "rouge_1_recall", "rouge_2_recall"),
    *("content_recall", "chrf", "longest_common_run"),
)


def varied(name, setting, values):
    """A row for each value of a setting."""
    return {f"{name}={value}": {setting: value} for value in values}


ABLATIONS = {
    "lambda": varied("lambda", "pmc.retain_weight", (0.5, 1.0, 1.25, 1.5, 2.0)),
    "samples": varied("n", "sample.num_samples", (1, 5, 10, 20)),
    "temperature": varied("T", "sample.temperature", (0.7, 1.0, 1.4, 1.8)),
    "selection": {"lowest": {}}
    | {f"bradley_terry={t}": BRADLEY_TERRY | {"pmc.selection_temperature": t} for t in (0.03, 0.1, 0.3)},
    "reward": varied("reward", "pmc.reward", REWARDS),
    "size": {f"size={share}": WHOLE | {"data.cut": f"last:{share}"} for share in (1, 5, 10, 25)},
    "shared": {f"{kind}": WHOLE | {"data.cut": f"{kind}:10"} for kind in ("last", "spread")},
}
# How far utility falls, and when it comes back, is seen in every epoch.
WATCHED = {"lambda": {"evaluate.every": 1, "evaluate.retain_rows": 50}}


def get_config(what: str = "lambda"):
    if what not in ABLATIONS:
        raise ValueError(f"--config=ablations:{what}: choose one of {', '.join(ABLATIONS)}")
    config = settings.changed(settings.default(), HELD | WATCHED.get(what, {}))
    rows = tuple(Row(name, (changes,)) for name, changes in ABLATIONS[what].items())
    return with_comparison(config, Comparison(rows, title=f"PMC on tofu-mini: {what}"))
