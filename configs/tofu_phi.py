"""The published settings for Phi-1.5, fine-tuned on TOFU (arXiv 2507.04219)."""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.sample.num_samples, config.sample.temperature, config.sample.top_p = 5, 1.25, 0.95
    config.pmc.retain_weight = 1.5
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 40, 64, 1e-5
    return config
