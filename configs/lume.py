"""LUME, SemEval-2025's task 4 (arXiv 2502.15097): --config.model.path=... --config.data.path=FOLDER.

FOLDER holds forget.jsonl and retain.jsonl, as the authors' repository does in data/. The task's own files are
--config.data.forget=forget_train --config.data.retain=retain_train.
"""

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.data.path = "data"
    config.data.forget, config.data.retain, config.data.finetune = "forget", "retain", "forget+retain"
    config.data.question_column, config.data.answer_column = "input", "output"
    # Some questions do not name the story that they are about, and so may stand on both sides.
    config.data.allow_overlap = True
    # The authors give the model the text itself.
    config.prompt.style, config.prompt.question_tag, config.prompt.question_end = "plain", "", ""
    config.prompt.answer_tag = " "
    config.sample.max_new_tokens, config.evaluate.max_new_tokens, config.train.max_length = 256, 256, 1024
    config.evaluate.retain_rows = 0
    config.evaluate.benchmarks = "lume"
    return config
