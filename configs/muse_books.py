"""MUSE Books (arXiv 2407.06460): --config.model.path=... [--config.data.path=COPY of muse-bench/MUSE-Books].

Novels to forget, as windows of 48 tokens that are continued by 64.
"""

from pmc_jax import config as settings

# AUC of the published model that never saw the texts, Min-40%, in MUSE's orientation.
REFERENCE_AUC = 0.5393


def get_config():
    config = settings.default()
    config.data.path = "muse-bench/MUSE-Books"
    config.data.forget, config.data.retain = "raw/forget", "raw/retain1"
    config.data.finetune = "raw/forget+raw/retain1"
    config.data.text_window, config.sample.max_new_tokens = 48, 64
    config.data.allow_overlap = True  # books share phrases
    config.pmc.reward = "rouge_2_recall"
    config.train.max_length = 2048  # fine-tuning reads chunks of this length
    config.evaluate.benchmarks, config.evaluate.muse_auc = "muse", REFERENCE_AUC
    config.evaluate.leak_samples = 0
    return config
