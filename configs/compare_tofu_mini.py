"""Every method on one small grid: --config.model.path=... --config.data.path=... [--config.evaluate.retain_model=...]

For small checkpoints that know the data by heart (docs/comparing.md). Each method starts from its authors' recipe
(configs/rivals.py), which is also run as it is. The grid is three learning rates, the same for all, at a batch of 8.
"""

from pmc_jax import config as settings
from pmc_jax.settings.comparison import Comparison, Row, with_comparison
from pmc_jax.training.objectives import OBJECTIVES

RATES = 3e-5, 1e-4, 3e-4
EPOCHS = 10
# PMC collapses from epoch to epoch, and has half as many again.
PMC = {"train.epochs": 15, "sample.num_samples": 10, "sample.temperature": 1.4}
# The attack by fine-tuning is the same for all, whatever a method was trained with.
MEASURE = {"train.learning_rate": 3e-4, "evaluate.leak_samples": 20}


def grid(changes):
    """The three points of a method."""
    return tuple({"train.learning_rate": rate, "train.batch_size": 8} | changes for rate in RATES)


def get_config():
    rivals = sorted(OBJECTIVES.keys() - {"pmc", "cross_entropy"})
    rows = (
        Row("pmc", grid(PMC), "tofu_llama"),
        *(Row(method, grid({"train.epochs": EPOCHS}), f"rivals:{method}") for method in rivals),
    )
    title = "Every method on tofu-mini"
    return with_comparison(settings.default(), Comparison(rows, MEASURE, title), tuning_seeds=1)
