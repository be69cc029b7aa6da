"""Another method with its authors' recipe on TOFU: --config=rivals:npo, or any other name of docs/methods.md.

Hyperparameters of a method stand in its table (pmc_jax/training/objectives/). Here is how long and how fast it trains.
"""

from pmc_jax import config as settings

# AdamW with weight decay .01, a warm-up of one epoch and linear decay, for all.
SHARED = {"train.epochs": 10, "train.batch_size": 32, "train.learning_rate": 1e-5}
OWN = {
    "retain_only": {},
    "gradient_ascent": {},
    "gradient_difference": {},
    "idk": {},
    "dpo": {},
    "npo": {},
    "simnpo": {},
    "wga": {"train.epochs": 5},
    "satimp": {"train.epochs": 5, "train.batch_size": 16},
    "maximum_entropy": {},
    "ceu": {"train.epochs": 9, "train.learning_rate": 2e-6},
    "undial": {"train.learning_rate": 1e-4},
    "rmu": {},
    "pdu": {},
    "altpo": {"train.epochs": 2, "train.learning_rate": 2e-5},
    "scrub": {"train.epochs": 3},
    "task_vector": {},
}


def get_config(method: str = "npo"):
    if method not in OWN:
        raise ValueError(f"--config=rivals:{method}: choose one of {', '.join(OWN)}")
    return settings.changed(settings.default(), SHARED | OWN[method] | {"method": method})
