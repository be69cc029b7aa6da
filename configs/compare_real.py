"""The most used methods and variants of PMC on a real model: SmolLM2-135M-Instruct forgets Shakespeare.

Model, data and batch are those of configs/real.py; answers have 32 tokens at most, and a run 8 epochs. The retain
answers are the model's own: with cross-entropy a method would sharpen them, so all hold them by KL(start || model), as
PMC does there, but for RMU, which has a retain term of its own. The grid is two learning rates. Utility compares whole
answers with the model's own words, of which any change costs some: the floor is 80 % of the start's, not 95.
"""

from pmc_jax import config as settings
from pmc_jax.runs.presets import load_preset
from pmc_jax.settings.comparison import Comparison, Row, with_comparison

POINTS = {"train.learning_rate": 3e-5}, {"train.learning_rate": 1e-4}
RIVALS = "gradient_difference", "idk", "dpo", "npo", "simnpo", "undial", "wga", "rmu"
PLAIN = {"pmc.refusal_weight": 0.0}
VARIANTS = {
    "pmc": PLAIN,
    "pmc_refusals": {},
    "pmc_prefixed": PLAIN | {"pmc.prefix_rows": 1},
    "pmc_bradley_terry": PLAIN | {"pmc.selection": "bradley_terry", "pmc.prune_candidates": False},
    "pmc_content": PLAIN | {"pmc.reward": "content_recall"},
}
# What is measured of a chosen point beyond quality and utility.
MEASURE = {"train.learning_rate": 3e-5, "evaluate.leak_samples": 10, "evaluate.relearn_updates": 10}
LEAST = {"sample.max_new_tokens": 32, "train.epochs": 8, "evaluate.max_new_tokens": 48, "evaluate.retain_rows": 40}
# One retain row, one rate and as many epochs for all; refusals as published.
ALIKE = {"pmc.retain_rows": 1, "train.updates": 0, "train.rate_width": 0, "train.rate_layers": 0}
ALIKE |= {"pmc.refusal_margin": 0.0, "pmc.stop_solved": 0}


def options(method):
    """Hyperparameters of a rival: its authors', with the retain term that is held for all."""
    return "" if method == "rmu" else "retain_weight=0,kl_weight=10"


def get_config():
    rivals = {method: {"method": method, "method_options": options(method)} for method in RIVALS}
    rows = tuple(Row(name, POINTS, held=held) for name, held in (VARIANTS | rivals).items())
    config = settings.changed(load_preset("real"), LEAST | ALIKE)
    return with_comparison(config, Comparison(rows, MEASURE, "A real model"), seeds="0", floor=80.0)
