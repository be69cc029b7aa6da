"""RWKU (arXiv 2406.10890): --config.model.path=... --config.data.subject="Stephen King".

`unlearn` is given the name alone, as in `configs/topic.py`. `evaluate` reads RWKU's files from data.path: forget level
2 is the forget set of all other parts, the neighbours' questions are what must stay.
"""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.data.path, config.data.question_column = "jinzhuoran/RWKU", "query"
    config.data.forget, config.data.retain = "forget_level2/test", "neighbor_level2/test"
    # Two people may share a question, and a question may be a neighbour's too.
    config.data.allow_overlap = True
    config.sample.num_samples, config.sample.max_new_tokens = 8, 32
    config.pmc.min_words, config.pmc.refusal_weight = 5, 0.5
    # The retain answers are the model's own, as in `configs/topic.py`.
    config.pmc.retain_weight, config.pmc.kl_weight, config.pmc.retain_rows = 0.0, 10.0, 2
    config.train.epochs, config.train.batch_size = 10, 8
    config.evaluate.max_new_tokens, config.evaluate.benchmarks = 48, "rwku"
    return config
