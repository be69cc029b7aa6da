"""Every method on one small grid: --config.model.path=... --config.data.path=... [--config.evaluate.retain_model=...]

For small checkpoints that know the data by heart (docs/comparing.md). Each method starts from its authors' recipe
(configs/rivals.py), which is also run as it is. The grid is three learning rates, the same for all, at a batch of 8 and
about as many updates.
"""

from pmc_jax import config as settings
from pmc_jax.settings.comparison import Comparison, Row, with_comparison
from pmc_jax.training.objectives import OBJECTIVES

RATES = 3e-5, 1e-4, 3e-4
# An epoch of AltPO has five alternates to each question, one of SCRUB all retain rows: five times the updates.
EPOCHS = {"altpo": 2, "scrub": 2}
OTHERS = 10
HELD = {"rmu": {"method_options": "layer=2"}}  # of six; its authors' is 7 of sixteen or more
# PMC collapses from epoch to epoch, and has half as many again.
PMC = {"train.epochs": 15, "sample.num_samples": 10, "sample.temperature": 1.4}
PREFIXED = PMC | {"pmc.prefix_rows": 3}  # has no recipe of its own, and four times the updates
# The attack by fine-tuning is the same for all, whatever a method was trained with.
MEASURE = {"train.learning_rate": 3e-4, "evaluate.leak_samples": 20, "evaluate.retain_rows": 100}


def grid(changes):
    """The three points of a method."""
    return tuple({"train.learning_rate": rate, "train.batch_size": 8} | changes for rate in RATES)


def get_config():
    rivals = sorted(OBJECTIVES.keys() - {"pmc", "cross_entropy"})
    points = {method: grid({"train.epochs": EPOCHS.get(method, OTHERS)}) for method in rivals}
    rows = (
        Row("pmc", grid(PMC), "tofu_llama"),
        Row("pmc_prefixed", grid(PREFIXED)),
        *(Row(method, points[method], f"rivals:{method}", HELD.get(method, {})) for method in rivals),
    )
    title = "Every method on tofu-mini"
    return with_comparison(settings.default(), Comparison(rows, MEASURE, title), tuning_seeds=1)
