"""Raw text as data: windows of it are what questions and answers are otherwise (`data.windows`)."""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data import questions
from pmc_jax.data.questions import Rows
from pmc_jax.data.windows import TEXT, cut_rows
from pmc_jax.errors import UserError
from pmc_jax.models.tokenizer_files import tokenizer_of


def windows_of(passages: Rows, tokenizer: Any, config: ConfigDict) -> Rows:
    """The windows of passages: a prefix of `data.text_window` tokens as "question", `sample.max_new_tokens` of what
    follows as "answer". UserError for a row that is no text, and where no passage is long enough.
    """
    questions.check_rows([row for row in passages if "question" not in row], "raw text", (TEXT,))
    rows = cut_rows(passages, tokenizer, config.data.text_window, config.sample.max_new_tokens)
    if passages and not rows:
        raise UserError("data.text_window: no passage has a prefix and a continuation; give texts of several words")
    return rows


def load_sides(config: ConfigDict) -> tuple[Rows, Rows]:
    """The forget and the retain rows that the settings name; of raw text the windows, by the model's tokenizer."""
    forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
    if not config.data.text_window:
        return forget, retain
    tokenizer = tokenizer_of(config.model.path)
    return windows_of(forget, tokenizer, config), windows_of(retain, tokenizer, config)
