"""Whatever a question and an answer hold: where a prompt ends, where an answer ends, and what is read back."""

import copy

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies

from pmc_jax.data.prompts import Template, make_text, training_row

CHAT = Template(system="")
PLAIN = Template("plain")
IN_PROMPT = Template("plain", tag_in="prompt", question_tag="[INST] ", question_end=" [/INST]", answer_tag="")
WORDS = strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
TEXT = WORDS.filter(lambda text: any(c.isprintable() and not c.isspace() for c in text))


@pytest.fixture(scope="module")
def appending(tokenizer):
    """The tokenizer with an end token after every text."""
    from tokenizers import processors

    mine = copy.deepcopy(tokenizer)
    special = [("<|end|>", mine.eos_token_id)]
    mine.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=special)
    return mine


@pytest.mark.parametrize("template", [CHAT, PLAIN, IN_PROMPT], ids=["chat", "plain", "given tag"])
def test_any_question_and_answer(tokenizer, appending, template):
    ends = (tokenizer.eos_token_id,)
    one, other = (make_text(mine, template, ends, len(tokenizer)) for mine in (tokenizer, appending))

    @settings(max_examples=60)
    @given(TEXT, TEXT)
    @example("Who?<|end|>", "Me.<|end|>")
    @example("?", "Answer: ")
    def check(question, answer):
        row = training_row(one, question, answer, 10_000, group=1)
        assert 0 < row.start < len(row.tokens) and max(row.tokens) < len(tokenizer)
        assert row.tokens[row.start - 1] not in ends and row.tokens[-1] in ends
        assert row.tokens[-2:] != [ends[0], ends[0]], "one end is enough"
        assert training_row(other, question, answer, 10_000, group=1) == row, "what is appended is no part of it"
        if "<|" not in answer and not answer.strip().startswith("Answer"):
            assert one.read(row.tokens[row.start :]) == answer.strip()
        for length in (row.start + 1, len(row.tokens) - 1):
            assert training_row(one, question, answer, length, group=1).tokens == row.tokens[:length]

    check()


MASKS = strategies.lists(strategies.lists(strategies.booleans(), min_size=6, max_size=6), min_size=2, max_size=2)


@settings(max_examples=40)
@given(MASKS)
def test_any_mask(mask):
    from pmc_jax.models.attention import causal_mask, positions_from_mask

    mask_BT = np.array(mask)
    looks_BTT, positions_BT = np.asarray(causal_mask(mask_BT)), np.asarray(positions_from_mask(mask_BT))
    for b, row in enumerate(mask):
        for t in range(6):
            assert looks_BTT[b, t].tolist() == [s <= t and row[s] for s in range(6)]
            assert positions_BT[b, t] == max(sum(row[: t + 1]) - 1, 0)
