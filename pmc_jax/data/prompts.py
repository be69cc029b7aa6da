"""Records -> token ids: templates, prompts, and training rows with their labels.

Prompt and answer are tokenised apart and joined, so that labels are known by construction and never searched for.
"""

import dataclasses
from typing import Any, NamedTuple

from pmc_jax.data.packing import Row
from pmc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question and its answer become text.

    Attributes:
        style: "chat" = the tokenizer's chat template; "plain" = question_tag + question, a newline, answer_tag +
            answer; "auto" = chat where there is a template.
        system: the system prompt of the chat; empty = none.
        date: the date that chat templates print.
        question_tag: stands before a plain question.
        answer_tag: stands before a plain answer.
        tag_in: for plain, what the answer tag belongs to: the "answer" (labelled, generated, stripped; the published
            PMC), or the "prompt" (open-unlearning).
    """

    style: str = "auto"
    system: str = "You are a helpful assistant."
    date: str = "10 Apr 2025"
    question_tag: str = "Question: "
    answer_tag: str = "Answer: "
    tag_in: str = "answer"

    def __post_init__(self):
        if self.style not in ("auto", "chat", "plain"):
            raise UserError(f"prompt.style={self.style!r}: choose one of auto, chat, plain")
        if self.tag_in not in ("answer", "prompt"):
            raise UserError(f"prompt.tag_in={self.tag_in!r}: choose one of answer, prompt")

    def is_chat(self, tokenizer: Any) -> bool:
        """Whether a tokenizer's chat template is used. UserError where it is asked for and absent."""
        if self.style == "chat" and not tokenizer.chat_template:
            raise UserError("prompt.style='chat', but the tokenizer has no chat template; use prompt.style=plain")
        return self.style == "chat" or (self.style == "auto" and bool(tokenizer.chat_template))


class Text(NamedTuple):
    """A tokenizer and a template: text <-> token ids.

    Attributes:
        tokenizer: a transformers tokenizer.
        template: how a question and its answer become text.
        end_tokens: all tokens that stop an answer.
        end_token: the one that is put after trained answers.
    """

    tokenizer: Any
    template: Template
    end_tokens: tuple[int, ...]
    end_token: int

    def prompt(self, question: str) -> list[int]:
        """Token ids of the prompt, up to where the answer begins."""
        t = self.template
        if t.is_chat(self.tokenizer):
            return self._chat([{"role": "user", "content": question}], add_generation_prompt=True)
        tag = t.answer_tag.rstrip() if t.tag_in == "prompt" else ""
        # A space at the end of a prompt would hide in it the space that starts the answer's first token.
        return self.tokenizer(f"{t.question_tag}{question}\n{tag}")["input_ids"]

    def answer_text(self, answer: str) -> str:
        """The text that answer tokens stand for: it ends with the answer."""
        t = self.template
        if t.is_chat(self.tokenizer):
            return answer.strip()
        if t.tag_in == "answer":
            return t.answer_tag + answer
        return t.answer_tag[len(t.answer_tag.rstrip()) :] + answer

    def answer(self, answer: str) -> list[int]:
        """Token ids of the answer, its end token included."""
        return self.tokenizer(self.answer_text(answer), add_special_tokens=False)["input_ids"] + [self.end_token]

    def read(self, tokens: list[int]) -> str:
        """The answer in generated tokens: without its end token, other special tokens and answer tag."""
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        t = self.template
        if not t.is_chat(self.tokenizer) and t.tag_in == "answer":
            text = text.removeprefix(t.answer_tag.strip()).strip()
        return text

    def read_tokens(self, tokens: list[int]) -> list[int]:
        """Token ids of the answer in generated tokens, whole or not: without its end token and answer tag."""
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        t = self.template
        if t.is_chat(self.tokenizer) or t.tag_in != "answer":
            return tokens
        tag = self.tokenizer(t.answer_tag.rstrip(), add_special_tokens=False)["input_ids"]
        return tokens[len(tag) :] if tokens[: len(tag)] == tag[: len(tokens)] else tokens

    def read_part(self, tokens: list[int]) -> str:
        """The words that are whole for sure in an answer that is still being drawn: they stay whatever comes."""
        text = self.read(tokens)
        if self.template.answer_tag.strip().startswith(text):
            return ""  # perhaps the start of the tag, which is no part of the answer
        words = text.rsplit(maxsplit=1)
        return words[0] if len(words) == 2 else ""

    def _chat(self, turns: list[dict[str, str]], **options) -> list[int]:
        t = self.template
        system = [{"role": "system", "content": t.system}] if t.system else []
        return self.tokenizer.apply_chat_template(system + turns, date_string=t.date, return_dict=False, **options)


def make_text(tokenizer: Any, template: Template, end_tokens: tuple[int, ...]) -> Text:
    """A Text whose end token is what the chat template puts after an answer, or else the tokenizer's own."""
    own = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else end_tokens[0]
    text = Text(tokenizer, template, end_tokens, own)
    if not template.is_chat(tokenizer):
        return text
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    prompt, whole = text._chat(turns[:1], add_generation_prompt=True), text._chat(turns)
    after = [i for i in whole[len(prompt) :] if i in end_tokens]
    return text._replace(end_token=after[0]) if after and whole[: len(prompt)] == prompt else text


def training_row(text: Text, question: str, answer: str, max_length: int, group: int) -> Row:
    """The training row of a prompt and its answer.

    Args:
        text: tokenizer and template.
        question: the question.
        answer: the answer.
        max_length: longest row, tokens, the prompt included; a longer answer is cut.
        group: the group of the row, such as forget or retain.

    Raises:
        UserError: the prompt leaves no room for an answer.
    """
    prompt = text.prompt(question)
    if len(prompt) >= max_length:
        raise UserError(
            f"train.max_length={max_length} leaves no room for an answer: the prompt of {question[:60]!r} has "
            f"{len(prompt)} tokens"
        )
    return Row((prompt + text.answer(answer))[:max_length], len(prompt), group)
