"""Records -> token arrays: templates, prompts, and packed training rows with their labels.

Prompt and answer are tokenised apart and joined, so that labels are known by construction and never searched for.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question and its answer become text.

    style: "chat" (the tokenizer's chat template), "plain" (question_tag + question, newline, answer_tag + answer), or "auto": chat where there is one.
    tag_in: for plain, whether the answer tag belongs to the "answer" (labelled, generated, stripped: the published PMC) or to the "prompt" (open-unlearning).
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
        if self.style == "chat" and not tokenizer.chat_template:
            raise UserError("prompt.style='chat', but the tokenizer has no chat template; use prompt.style=plain")
        return self.style == "chat" or (self.style == "auto" and bool(tokenizer.chat_template))


class Text(NamedTuple):
    """A tokenizer and a template: text <-> token ids. end_tokens: all that stop an answer; end_token: the one put after trained answers."""

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

    def answer(self, answer: str) -> list[int]:
        """Token ids of the answer, its end token included."""
        t = self.template
        if t.is_chat(self.tokenizer):
            text = answer.strip()
        elif t.tag_in == "answer":
            text = t.answer_tag + answer
        else:
            text = t.answer_tag[len(t.answer_tag.rstrip()) :] + answer
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.end_token]

    def read(self, tokens: list[int]) -> str:
        """The answer in generated tokens: without its end token, other special tokens and answer tag."""
        if tokens and tokens[-1] in self.end_tokens:
            tokens = tokens[:-1]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        t = self.template
        if not t.is_chat(self.tokenizer) and t.tag_in == "answer":
            text = text.removeprefix(t.answer_tag.strip()).strip()
        return text

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


class Row(NamedTuple):
    """One training example. tokens: prompt + answer. start: where the answer begins. group: 1 forget, 2 retain."""

    tokens: list[int]
    start: int
    group: int


def training_row(text: Text, question: str, answer: str, max_length: int, group: int) -> Row:
    """Prompt and answer, cut to `max_length` tokens in all. UserError when no answer token is left."""
    prompt = text.prompt(question)
    if len(prompt) >= max_length:
        raise UserError(f"train.max_length={max_length} leaves no room for an answer: the prompt of {question[:60]!r} has {len(prompt)} tokens")
    return Row((prompt + text.answer(answer))[:max_length], len(prompt), group)


class Batch(NamedTuple):
    """Packed rows. M micro-batches, R rows of T positions, S data shards with A labels each.

    segments_MRT: 0 padding, 1 the prefix that all examples share, 2.. one number an example.
    at_MSA: where each label is predicted, an index into a shard's R / S * T positions. group_MSA: 0 no label, 1 forget, 2 retain.
    counts_2: forget and retain labels in the whole global batch, float32; 1 where there are none.
    """

    tokens_MRT: np.ndarray
    positions_MRT: np.ndarray
    segments_MRT: np.ndarray
    at_MSA: np.ndarray
    labels_MSA: np.ndarray
    group_MSA: np.ndarray
    counts_2: np.ndarray


class Shape(NamedTuple):
    """Compiled sizes of a batch: rows a shard, positions a row, labels a shard."""

    rows: int
    length: int
    labels: int


def common_prefix(rows: list[Row]) -> int:
    """How many leading prompt tokens all rows share; at least one prompt token stays with each row."""
    shortest = min(r.start for r in rows) - 1
    first = rows[0].tokens
    for at in range(shortest):
        if any(r.tokens[at] != first[at] for r in rows):
            return at
    return max(shortest, 0)


def fill_bins(lengths: list[int], room: int) -> list[list[int]]:
    """First-fit decreasing: indices of examples, bin by bin; every bin holds at most `room` tokens."""
    bins: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = next((b for b, free in enumerate(left) if free >= lengths[i]), None)
        if at is None:
            bins.append([])
            left.append(room)
            at = len(bins) - 1
        bins[at].append(i)
        left[at] -= lengths[i]
    return bins


def deal(rows: list[Row], parts: int) -> list[list[Row]]:
    """Rows over `parts`, longest first to the part with the fewest tokens."""
    dealt: list[list[Row]] = [[] for _ in range(parts)]
    for row in sorted(rows, key=lambda r: -len(r.tokens)):
        min(dealt, key=lambda p: sum(len(r.tokens) for r in p)).append(row)
    return dealt


def pack(rows: list[Row], prefix: int, least: Shape, shards: int = 1, micro_batches: int = 1) -> tuple[Batch, Shape]:
    """Pack examples into rows of `least.length` positions; returns the batch and the shape it needed, never smaller than `least`.

    prefix: leading tokens that all examples share (`common_prefix`); they are put once at the head of each packed row, and every example in it looks at them.
    The loss over a packed batch equals the loss over the same examples one a row.
    """
    parts = [deal(part, shards) for part in deal(rows, micro_batches)]
    bins = [[fill_bins([len(r.tokens) - prefix for r in shard], least.length - prefix) for shard in part] for part in parts]
    most_rows = max(len(b) for part in bins for b in part)
    most_labels = max(sum(len(r.tokens) - r.start for r in shard) for part in parts for shard in part)
    shape = Shape(max(least.rows, most_rows), least.length, least.labels if most_labels <= least.labels else -(-most_labels // 64) * 64)
    packed = [_pack_shard(shard, b, prefix, shape) for part, part_bins in zip(parts, bins) for shard, b in zip(part, part_bins)]
    tokens, positions, segments, at, labels, group = (np.stack(x).reshape(micro_batches, -1, x[0].shape[-1]) for x in zip(*packed))
    counts = np.array([max(1, np.sum(group == g)) for g in (1, 2)], np.float32)
    return Batch(tokens, positions, segments, at, labels, group, counts), shape


def _pack_shard(rows: list[Row], bins: list[list[int]], prefix: int, shape: Shape) -> tuple[np.ndarray, ...]:
    """One shard's arrays: tokens, positions, segments [R, T]; at, labels, group [A]."""
    tokens, positions, segments = (np.zeros((shape.rows, shape.length), np.int32) for _ in range(3))
    at, labels, group = (np.zeros(shape.labels, np.int32) for _ in range(3))
    filled = 0
    for r, members in enumerate(bins):
        end = prefix
        tokens[r, :prefix], positions[r, :prefix], segments[r, :prefix] = rows[members[0]].tokens[:prefix], np.arange(prefix), 1
        for number, i in enumerate(members):
            own, start = rows[i].tokens[prefix:], rows[i].start - prefix
            here = slice(end, end + len(own))
            tokens[r, here], positions[r, here], segments[r, here] = own, prefix + np.arange(len(own)), 2 + number
            n = len(own) - start
            at[filled : filled + n] = r * shape.length + end + start - 1 + np.arange(n)
            labels[filled : filled + n], group[filled : filled + n] = own[start:], rows[i].group
            filled, end = filled + n, end + len(own)
    return tokens, positions, segments, at, labels, group
