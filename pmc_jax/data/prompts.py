"""Records -> token ids: templates, prompts, and training rows with their labels.

Prompt and answer are tokenised apart and joined, so that labels are known by construction and never searched for.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pmc_jax.data.chat import QUESTION, Chat, check_options, choose_template, find_boundary, place_system
from pmc_jax.data.packing import Row
from pmc_jax.errors import UserError

# How templates write tokens that only they use, such as <|im_end|>, </s> or [/ANSWER].
CONTROL = re.compile(r"\s*(<[^<>\s]+>|\[/?[A-Z_]+\])")
CHOICES = {"style": ("auto", "chat", "plain"), "tag_in": ("answer", "prompt")}
CHOICES |= {"system_in": ("auto", "turn", "user", "none")}


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question and its answer become text: the settings `prompt.*`.

    Attributes:
        style: "chat" = the tokenizer's chat template; "plain" = question_tag + question + question_end, answer_tag +
            answer; "auto" = chat where there is a template.
        system: the system text of the chat; empty = none.
        date: the date that chat templates print.
        question_tag: stands before a plain question.
        answer_tag: stands before a plain answer.
        tag_in: for plain, what the answer tag belongs to: the "answer" (labelled, generated, stripped; the published
            PMC), or the "prompt" (open-unlearning).
        question_end: stands behind a plain question.
        template: which chat template, for a tokenizer with several; empty = "default".
        template_options: variables given to the chat template, such as enable_thinking=False.
        system_in: where the system text goes: "turn" = a turn of its own, "user" = in front of the question, "none" =
            it is left out; "auto" = a turn where the template takes one, else in front of the question.
    """

    style: str = "auto"
    system: str = "You are a helpful assistant."
    date: str = "10 Apr 2025"
    question_tag: str = "Question: "
    answer_tag: str = "Answer: "
    tag_in: str = "answer"
    question_end: str = "\n"
    template: str = ""
    template_options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    system_in: str = "auto"

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"prompt.{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        check_options(self.template_options)

    def is_chat(self, tokenizer: Any) -> bool:
        """Whether a tokenizer's chat template is used. UserError where it is asked for and absent."""
        if self.style != "plain" and not tokenizer.chat_template:
            asked = "style='chat'" if self.style == "chat" else f"template={self.template!r}" if self.template else ""
            if asked:
                raise UserError(
                    f"prompt.{asked}, but the tokenizer has no chat template; use prompt.style=plain, and no "
                    "prompt.template"
                )
        return self.style != "plain" and bool(tokenizer.chat_template)


class Text(NamedTuple):
    """A tokenizer and a template: text <-> token ids.

    Attributes:
        tokenizer: a transformers tokenizer.
        template: how a question and its answer become text.
        end_tokens: all tokens that stop an answer.
        end_token: the one that is put after trained answers.
        chat: the chat template; None for the plain style.
        context: the text before an answer, for a tokenizer whose tokens of the answer depend on it; else empty.
        note: what the user should know about this template; empty = nothing.
        vocab_size: ids from this on have no embedding; None = unknown.
        continues: an answer goes on with the text of the question: it keeps its white space and has no end token, as
            raw text has none in its midst.
    """

    tokenizer: Any
    template: Template
    end_tokens: tuple[int, ...]
    end_token: int
    chat: Chat | None = None
    context: str = ""
    note: str = ""
    vocab_size: int | None = None
    continues: bool = False

    def prompt(self, question: str) -> list[int]:
        """Token ids of the prompt, up to where the answer begins. They never end in an end token."""
        if self.chat:
            return self._without_end(self._ids(self.chat.prompt(question)))
        t = self.template
        tag = t.answer_tag.rstrip() if t.tag_in == "prompt" else ""
        # A space at the end of a prompt would hide in it the space that starts the answer's first token.
        text = f"{t.question_tag}{question}{t.question_end}{tag}"
        ids, own = self._known(self.tokenizer(text)["input_ids"]), self._ids(text)
        # What the tokenizer puts in front belongs to the prompt, what it appends does not.
        starts = [i for i in range(len(ids) - len(own) + 1) if ids[i : i + len(own)] == own]
        return self._without_end(ids[: starts[0] + len(own)] if starts else ids)

    def answer_text(self, answer: str) -> str:
        """The text that answer tokens stand for: it ends with the answer."""
        if self.chat:
            return self.chat.lead + answer.strip()
        t = self.template
        if t.tag_in == "answer":
            return t.answer_tag + answer
        return t.answer_tag[len(t.answer_tag.rstrip()) :] + answer

    def answer(self, answer: str) -> list[int]:
        """Token ids of the answer, its end token included where it has one."""
        ids = self._without_end(self._known(self._answer(answer)["input_ids"]))
        return ids if self.continues else [*ids, self.end_token]

    def spans(self, answer: str) -> list[tuple[int, int]]:
        """Where each token of `answer`, without the end token, lies in `answer_text`: (start, end) in characters."""
        encoded = self._answer(answer, return_offsets_mapping=True)
        count = len(self._without_end(encoded["input_ids"]))
        return [(start, end) for start, end in encoded["offset_mapping"][:count]]

    def read(self, tokens: list[int]) -> str:
        """The answer in generated tokens: without its end token, other special tokens and answer tag."""
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        if self.continues:
            return self._continuation(tokens)
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        tag = self._tag().strip()
        return text.removeprefix(tag).strip() if tag else text

    def read_tokens(self, tokens: list[int]) -> list[int]:
        """Token ids of the answer in generated tokens, whole or not: without its end token and answer tag."""
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        text = self._tag().rstrip()
        tag = self._ids(text) if text else []
        return tokens[len(tag) :] if tokens[: len(tag)] == tag[: len(tokens)] else tokens

    def read_part(self, tokens: list[int]) -> str:
        """The words that are whole for sure in an answer that is still being drawn: they stay whatever comes."""
        words = "" if self.may_be_tag(text := self.read(tokens)) else text.rsplit(maxsplit=1)
        return words[0] if len(words) == 2 else ""

    def may_be_tag(self, text: str) -> bool:
        """Whether the beginning of an answer, as `read` gives it, is perhaps that of the tag, which is not its own."""
        return self.template.answer_tag.strip().startswith(text) or self._tag().strip().startswith(text)

    def _continuation(self, tokens: list[int]) -> str:
        """The text of tokens behind a text. Half a character, as the last token may leave it, is left out."""
        before = self._ids(self.context) if self.context else []
        start, text = (
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (before, before + tokens)
        )
        return text.removeprefix(start).rstrip("\ufffd")

    def _tag(self) -> str:
        """What answers begin with and is no part of them."""
        if self.chat:
            return self.chat.lead
        return self.template.answer_tag if self.template.tag_in == "answer" else ""

    def _ids(self, text: str) -> list[int]:
        return self._known(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _known(self, ids: list[int]) -> list[int]:
        """The same ids. UserError for one that the model has no embedding for: it would be read as another."""
        beyond = [i for i in ids if self.vocab_size is not None and i >= self.vocab_size]
        if beyond:
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise UserError(
                f"a prompt or an answer holds {token!r}, token {beyond[0]}, and the model's embedding has "
                f"{self.vocab_size} rows; remove it from the text or the chat template"
            )
        return ids

    def _without_end(self, ids: list[int]) -> list[int]:
        while ids and ids[-1] in self.end_tokens:
            ids = ids[:-1]
        return ids

    def _answer(self, answer: str, **options) -> dict[str, list]:
        """The encoding of `answer_text`: behind `context`, where the tokens of the two stay apart."""
        text = self.answer_text(answer)
        if self.context:
            before = self._ids(self.context)
            whole = self.tokenizer(self.context + text, add_special_tokens=False, **options)
            if whole["input_ids"][: len(before)] == before:
                encoded = {"input_ids": whole["input_ids"][len(before) :]}
                if options:
                    shift, offsets = len(self.context), whole["offset_mapping"][len(before) :]
                    encoded["offset_mapping"] = [(max(start - shift, 0), end - shift) for start, end in offsets]
                return encoded
        return self.tokenizer(text, add_special_tokens=False, **options)


def make_text(tokenizer: Any, template: Template, end_tokens: tuple[int, ...], vocab_size: int | None = None) -> Text:
    """A Text whose end token is what the chat template puts after an answer, or else the tokenizer's own.

    Args:
        tokenizer: a transformers tokenizer.
        template: how a question and its answer become text.
        end_tokens: the tokens that the checkpoint calls the end. The special token that the chat template puts right
            after an answer is added to them.
        vocab_size: rows of the model's embedding; None = ids are not checked.

    Raises:
        UserError: the settings `prompt.*` do not fit the tokenizer's chat template.
    """
    own = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else end_tokens[0]
    text = Text(tokenizer, template, end_tokens, own, vocab_size=vocab_size)
    if not template.is_chat(tokenizer):
        return text
    source = choose_template(tokenizer.chat_template, template.template)
    options = {"date_string": template.date, **template.template_options}
    chat, note = place_system(Chat(tokenizer, source, options, template.system, ""), template.system_in)
    boundary = find_boundary(chat)
    chat = chat._replace(opening=boundary.opening, lead=boundary.lead)
    if boundary.lead.strip():
        hint = "; prompt.template_options.enable_thinking=False avoids it" if "enable_thinking" in source else ""
        note += "; " * bool(note) + f"the chat template begins each answer with {boundary.lead!r}{hint}"
    text = add_end(text._replace(chat=chat, note=note), boundary.after)
    return text._replace(context=find_context(text))


def add_end(text: Text, after: str) -> Text:
    """The text with the end token that a chat template writes.

    Args:
        text: its `end_tokens` are those of the checkpoint.
        after: what the template puts after an answer.

    Raises:
        UserError: that is meant for a token, and the tokenizer does not have it.
    """
    ids = text._ids(after) if after else []
    if ids and ids[0] not in text.end_tokens and is_special(text.tokenizer, ids[0]):
        return text._replace(end_token=ids[0], end_tokens=tuple(sorted({*text.end_tokens, ids[0]})))
    ends = [i for i in ids if i in text.end_tokens]
    if ends or not after.strip():
        return text._replace(end_token=ends[0]) if ends else text
    shown, own = after.strip()[:30], text.tokenizer.convert_ids_to_tokens(text.end_token)
    if CONTROL.match(after):
        raise UserError(
            f"the chat template ends an answer with {shown!r}, which is no token of this tokenizer: where an answer "
            "ends could not be seen; take the tokenizer that belongs to the template, or prompt.style=plain"
        )
    odd = f"the chat template ends an answer with the words {shown!r}, which are no end token; answers end with {own!r}"
    return text._replace(note="; ".join(filter(None, (text.note, odd))))


def is_special(tokenizer: Any, token: int) -> bool:
    """Whether a token is a control token, such as the end of a turn."""
    added = tokenizer.added_tokens_decoder.get(token)
    return token in tokenizer.all_special_ids or bool(added and added.special)


def find_context(text: Text) -> str:
    """The text between question and answer, where the tokens of an answer depend on it; else empty.

    SentencePiece tokenizers put a space before a text that stands alone, and none behind a newline.
    """
    context = text.chat.prompt(QUESTION).rpartition(QUESTION)[2]
    alone, joined = text.answer("x"), text._replace(context=context).answer("x")
    return context if alone != joined else ""


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
            f"train.max_length={max_length} leaves no room for an answer: the prompt has {len(prompt)} tokens"
        )
    return Row((prompt + text.answer(answer))[:max_length], len(prompt), group)
