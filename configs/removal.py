"""A removal request: a model, questions to forget, data that must stay, and no other setting.

--config.model.path=... --config.data.forget_file=... --config.data.retain_file=...

Few questions are gone through more often, and the rate goes by the model's size. docs/results.md has what it does to
SmolLM2-135M and two smaller models.
"""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.sample.num_samples, config.sample.temperature, config.sample.max_new_tokens = 8, 1.0, 48
    config.pmc.min_words, config.pmc.refusal_weight, config.pmc.refusal_margin = 5, 0.5, 0.2
    config.pmc.stop_solved = 3
    # KL leaves the rest as it is, what the retain data does not name too. CE would draw it towards the retain data.
    config.pmc.retain_weight, config.pmc.kl_weight, config.pmc.retain_rows = 0.0, 10.0, 4
    config.train.epochs, config.train.updates, config.train.batch_size = 20, 100, 4
    config.train.learning_rate, config.train.rate_width, config.train.rate_layers = 3e-5, 576, 30  # SmolLM2-135M
    config.evaluate.max_new_tokens, config.evaluate.retain_rows = 64, 100
    return config
