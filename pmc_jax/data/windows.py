"""Raw text -> windows: a prefix of a few tokens as what is asked, and the text that follows it as its answer.

    passage   The storm came in from the north , and by noon the harbour was empty ...
    window 1  [prefix     ][continuation              ]
    window 2                            [prefix    ][continuation              ]

Each continuation begins where the one before it ended, so that every token but the first prefix is once to be
continued.
"""

from itertools import pairwise
from typing import Any

from pmc_jax.data.parse import Rows
from pmc_jax.data.prompts import Template, Text, make_text

TEXT = "text"  # the column of raw text, as MUSE's files have it
NO_TEMPLATE = Template("plain", question_tag="", question_end="", answer_tag="")


def window_bounds(tokens: int, prefix: int, length: int) -> list[tuple[int, int, int]]:
    """(begin, begin of the continuation, end) of each window of a text, in tokens.

    The last window ends with the text, and so may overlap the one before it. A text that is shorter than a window has
    one, with a prefix of half the text at most; a text of one token has none.

    Args:
        tokens: of the text.
        prefix: tokens of a prefix.
        length: tokens of a continuation.
    """
    if tokens < 2:
        return []
    if tokens <= prefix + length:
        return [(0, min(prefix, tokens // 2), tokens)]
    last = tokens - prefix - length
    return [(begin, begin + prefix, begin + prefix + length) for begin in (*range(0, last, length), last)]


def word_starts(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    """For each token, the character where its word begins, the space before it included; the end of the text is last.

    Cut there, prefix and continuation are tokenised apart as they are together.

    Args:
        text: the whole text.
        offsets: (start, end) in characters of each of its tokens.
    """
    starts, begin = [], 0
    for start, end in offsets:
        if text[start:end][:1].isspace() or not starts:
            begin = start
        starts.append(begin)
    return [*starts, len(text)]


def cut_text(text: str, tokenizer: Any, prefix: int, length: int) -> list[tuple[str, str]]:
    """(prefix, continuation) of each window of a text.

    Prefixes begin and end between words, up to a word early. A text without spaces is cut between tokens.

    Args:
        text: the text.
        tokenizer: a fast transformers tokenizer.
        prefix: tokens of a prefix.
        length: tokens of a continuation, at least; the last one of a text may be shorter.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = encoded["offset_mapping"]
    starts = word_starts(text, offsets)
    apart = [start for start, _ in offsets] + [len(text)]
    windows = []
    for begin, middle, end in window_bounds(len(offsets), prefix, length):
        # A continuation ends where the next word begins: it is not shorter than asked for.
        places = starts[begin], starts[middle], next(s for s in starts[end:] if s >= apart[end])
        if any(b <= a for a, b in pairwise(places)):
            places = apart[begin], apart[middle], apart[end]
        windows.append((text[places[0] : places[1]].lstrip(), text[places[1] : places[2]]))
    return [window for window in windows if all(part.strip() for part in window)]


def cut_rows(rows: Rows, tokenizer: Any, prefix: int, length: int) -> Rows:
    """The windows of all passages: {"question": prefix, "answer": continuation, "passage": number of the row}.

    Of windows with the same prefix, the first stays: the model continues them alike. Rows with a question, which are
    windows already, stay as they are.

    Args:
        rows: with the column `text`; checked.
        tokenizer: a fast transformers tokenizer.
        prefix: tokens of a prefix.
        length: tokens of a continuation.
    """
    windows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        if TEXT not in row:
            windows.setdefault(row["question"], row)
            continue
        for question, answer in cut_text(row[TEXT], tokenizer, prefix, length):
            windows.setdefault(question, {"question": question, "answer": answer, "passage": number})
    return list(windows.values())


def make_continuation(tokenizer: Any, end_tokens: tuple[int, ...], vocab_size: int | None = None) -> Text:
    """A Text for raw text: a prompt is the text itself, and an answer is what comes next.

    Args:
        tokenizer: as for `make_text`, and so are the others.
        end_tokens: they are never part of an answer.
        vocab_size: rows of the model's embedding.
    """
    text = make_text(tokenizer, NO_TEMPLATE, end_tokens, vocab_size)._replace(continues=True)
    behind = text._replace(context="\n")
    return text if text.answer("x") == behind.answer("x") else behind
