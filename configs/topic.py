"""A topic by its name alone: --config.model.path=... --config.data.topic="William Shakespeare".

The model writes the questions itself (docs/howto.md). Measured on SmolLM2-135M-Instruct (docs/results.md).
"""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.data.forget, config.data.retain = "forget", "retain"  # those of the workdir's data
    config.sample.num_samples, config.sample.temperature, config.sample.max_new_tokens = 8, 1.0, 32
    config.pmc.min_words, config.pmc.refusal_weight = 5, 0.5
    # The retain answers are the model's own: CE would sharpen them, KL leaves them as they are.
    config.pmc.retain_weight, config.pmc.kl_weight, config.pmc.retain_rows = 0.0, 10.0, 2
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 20, 4, 3e-5
    config.evaluate.max_new_tokens, config.evaluate.retain_rows = 48, 100
    return config
