"""The published settings for Llama-3.2-3B-Instruct, fine-tuned on TOFU (arXiv 2507.04219)."""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.sample.num_samples, config.sample.temperature, config.sample.top_p = 20, 0.9, 0.95
    config.pmc.retain_weight = 1.25
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 30, 16, 1e-5
    return config
