"""A byte-level BPE tokenizer with a chat template, trained on the spot for models made from scratch."""

from typing import Any

from pmc_jax.data.questions import Rows
from pmc_jax.data.windows import TEXT

BEGIN, END, HEADER, HEADER_END, PAD = "<|begin|>", "<|end|>", "<|role|>", "<|/role|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{HEADER}{{{{ message['role'] }}}}{HEADER_END}{{{{ message['content'] | trim }}}}{END}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{HEADER}assistant{HEADER_END}{{% endif %}}"
)


def train_tokenizer(rows: Rows, vocab_size: int) -> Any:
    """Train a tokenizer on the questions and answers of some rows, or on their raw text.

    Args:
        rows: rows with `question` and `answer`, or with `text`.
        vocab_size: its size at most, tokens.

    Returns:
        A transformers tokenizer with a chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [BEGIN, END, HEADER, HEADER_END, PAD]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [row[key] for row in rows for key in ((TEXT,) if TEXT in row else ("question", "answer"))]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[HEADER, HEADER_END],  # what transformers 4 and 5 both take
        chat_template=CHAT_TEMPLATE,
    )
