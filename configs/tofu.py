"""Any model on any TOFU-shaped data: --config.model.path=... --config.data.path=..."""

from pmc_jax import config as settings


def get_config():
    return settings.default()
