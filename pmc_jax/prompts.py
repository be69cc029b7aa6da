"""Records -> token arrays: templates, prompts, and packed training rows with their labels.

Prompt and answer are tokenised apart and joined, so that labels are known by construction and never searched for.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError

LENGTH_MULTIPLE = 32  # positions of a packed row
LABEL_MULTIPLE = 32
LENGTH_OF_EQUAL_COST = 1500  # positions at which a row's attention costs about as much as all else; only weighs row lengths against each other


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question and its answer become text.

    style: "chat" (the tokenizer's chat template), "plain" (question_tag + question, newline, answer_tag + answer), or "auto": chat where
    there is a template. tag_in: for plain, whether the answer tag belongs to the "answer" (labelled, generated, stripped: the published PMC)
    or to the "prompt" (open-unlearning).
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


class Size(NamedTuple):
    """Packed rows and labels a shard."""

    rows: int
    labels: int


class Packing(NamedTuple):
    """How batches are packed: tokens that all examples share, positions a row, and the sizes to compile for, small to large."""

    prefix: int
    length: int
    sizes: tuple[Size, ...]

    def size_for(self, rows: int, labels: int) -> Size:
        """The smallest size that holds so many; beyond the largest, one that fits, rounded up."""
        for size in self.sizes:
            if rows <= size.rows and labels <= size.labels:
                return size
        return Size(rows, _round_up(labels))


def plan_packing(draw_batch: Any, longest: int, prefix: int, shards: int, micro_batches: int) -> Packing:
    """Choose the row length and sizes that pack typical batches with the least padding.

    draw_batch: (number) -> rows of one typical batch. The small size holds nine batches of ten; the large one all that were drawn, with a margin.
    """
    batches = [draw_batch(number) for number in range(40)]
    best = None
    for length in range(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, 2 * longest + LENGTH_MULTIPLE, LENGTH_MULTIPLE):
        trial = Packing(prefix, length, ())
        rows, labels = np.array([needed(b, trial, shards, micro_batches)[2:] for b in batches]).T
        typical = int(np.quantile(rows, 0.9, method="higher"))
        cost = typical * length * (1 + length / LENGTH_OF_EQUAL_COST)
        if best is None or cost < best[0]:
            small = Size(typical, _round_up(int(np.quantile(labels, 0.9))))
            large = Size(int(rows.max()) + 1, _round_up(int(labels.max() * 1.25)))
            best = cost, Packing(prefix, length, (small, large))
    return best[1]


def _round_up(labels: int) -> int:
    return -(-labels // LABEL_MULTIPLE) * LABEL_MULTIPLE


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


def needed(rows: list[Row], packing: Packing, shards: int, micro_batches: int) -> tuple[list[list[Row]], list[list[list[int]]], int, int]:
    """Rows dealt to (micro-batch, shard), their bins, and how many packed rows and labels a shard needs."""
    parts = [shard for part in deal(rows, micro_batches) for shard in deal(part, shards)]
    bins = [fill_bins([len(r.tokens) - packing.prefix for r in part], packing.length - packing.prefix) for part in parts]
    return parts, bins, max(map(len, bins)), max(sum(len(r.tokens) - r.start for r in part) for part in parts)


def pack(rows: list[Row], packing: Packing, shards: int = 1, micro_batches: int = 1) -> Batch:
    """Pack examples into rows of `packing.length` positions.

    Leading tokens that all examples share (`packing.prefix` of them) are put once at the head of each packed row, and every example in it
    looks at them. The loss over a packed batch equals the loss over the same examples one a row. The arrays have the smallest of the
    packing's sizes that holds them.
    """
    parts, bins, most_rows, most_labels = needed(rows, packing, shards, micro_batches)
    size = packing.size_for(most_rows, most_labels)
    packed = [_pack_shard(part, b, packing.prefix, packing.length, size) for part, b in zip(parts, bins)]
    tokens, positions, segments, at, labels, group = (np.stack(x).reshape(micro_batches, -1, x[0].shape[-1]) for x in zip(*packed))
    counts = np.array([max(1, np.sum(group == g)) for g in (1, 2)], np.float32)
    return Batch(tokens, positions, segments, at, labels, group, counts)


def _pack_shard(rows: list[Row], bins: list[list[int]], prefix: int, length: int, size: Size) -> tuple[np.ndarray, ...]:
    """One shard's arrays: tokens, positions, segments [R, T]; at, labels, group [A]."""
    tokens, positions, segments = (np.zeros((size.rows, length), np.int32) for _ in range(3))
    at, labels, group = (np.zeros(size.labels, np.int32) for _ in range(3))
    filled = 0
    for r, members in enumerate(bins):
        end = prefix
        tokens[r, :prefix], positions[r, :prefix], segments[r, :prefix] = rows[members[0]].tokens[:prefix], np.arange(prefix), 1
        for number, i in enumerate(members):
            own, start = rows[i].tokens[prefix:], rows[i].start - prefix
            here = slice(end, end + len(own))
            tokens[r, here], positions[r, here], segments[r, here] = own, prefix + np.arange(len(own)), 2 + number
            n = len(own) - start
            at[filled : filled + n] = r * length + end + start - 1 + np.arange(n)
            labels[filled : filled + n], group[filled : filled + n] = own[start:], rows[i].group
            filled, end = filled + n, end + len(own)
    return tokens, positions, segments, at, labels, group
