"""Raw text to forget: --config.data.forget_file=FORGET.txt --config.data.retain_file=RETAIN.txt (or rows with `text`).

Windows of 48 tokens are continued by 64. The reward counts pairs of words: single stop words stand in any English text,
and would keep the score of every continuation above 0.
"""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.data.text_window, config.sample.max_new_tokens = 48, 64
    config.pmc.reward = "rouge_2_recall"
    # Text known by heart is said with .98 a token: a nucleus of .95 holds nothing else to choose from. Measured on
    # SmolLM2-135M-Instruct (docs/results.md).
    config.sample.num_samples, config.sample.temperature, config.sample.top_p = 8, 1.3, 1.0
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 10, 4, 1e-4
    return config
