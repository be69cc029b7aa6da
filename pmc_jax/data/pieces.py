"""Answers that are still being drawn, read on from where reading stopped: the pieces between two spaces."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from pmc_jax.data.prompts import Text

START, BLANK, INSIDE = range(3)
REMEMBERED = 2**16  # pieces of text; answers repeat theirs
CONTRACTION = "n't"  # a tokenizer that cleans up spaces puts it, and "n ' t" too, behind the word before


class Pieces:
    """What stands between the spaces of token ids, each piece read once.

    A text is cut before a token that begins with a space, or is one. Such a cut divides no word, and what comes later
    changes nothing before it: tokenizers write tokens one after the other, and a space ends whatever bytes of a
    character are missing.

    Args:
        text: reads token ids.
        units: text -> what is wanted of it.
    """

    def __init__(self, text: Text, units: Callable[[str], Any]):
        self.units = units
        tokenizer = text.tokenizer
        read = functools.partial(tokenizer.decode, skip_special_tokens=True)
        probe = tokenizer("a", add_special_tokens=False)["input_ids"]
        before, cleans = read(probe), bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))

        @functools.cache
        def kind(token: int) -> int:
            added = read([*probe, token])
            if not added.startswith(before) or not added[len(before) : len(before) + 1].isspace():
                return INSIDE
            word = added[len(before) :].strip()
            if cleans and (word.startswith(CONTRACTION) or word in CONTRACTION):
                return INSIDE
            return START if word else BLANK

        @functools.cache
        def is_open(token: int) -> bool:
            return cleans and read([*probe, token]).rstrip().endswith("'")

        @functools.lru_cache(REMEMBERED)
        def of_beginning(tokens: tuple[int, ...]) -> tuple[Any, ...] | None:
            beginning = text.read(list(tokens))
            return None if text.may_be_tag(beginning) else tuple(units(beginning))

        self.kind, self.is_open, self.of_beginning = kind, is_open, of_beginning
        self.of_piece = functools.lru_cache(REMEMBERED)(lambda tokens: tuple(units(read(list(tokens)))))

    def is_cut(self, tokens: Sequence[int], i: int) -> bool:
        """Whether the text may be cut before token number i, which is not the first."""
        return self.kind(tokens[i]) != INSIDE and not self.is_open(tokens[i - 1])

    def last_cut(self, tokens: Sequence[int], start: int) -> int:
        """The last place, behind `start`, before which the text is whole for sure; `start` where there is none."""
        end = len(tokens)
        while end > start and self.kind(tokens[end - 1]) == BLANK:  # perhaps the end of the text, which is cut off
            end -= 1
        return next((i for i in range(end - 1, start, -1) if self.is_cut(tokens, i)), start)

    def read(self, tokens: Sequence[int]) -> list[Any]:
        """The units of token ids that begin at a cut, and end at one or with the text."""
        of_piece, start = self.of_piece, 0
        units: list[Any] = []
        for i in range(1, len(tokens)):
            if self.is_cut(tokens, i):
                units += of_piece(tuple(tokens[start:i]))
                start = i
        return [*units, *of_piece(tuple(tokens[start:]))]

    def read_beginning(self, tokens: Sequence[int]) -> list[Any] | None:
        """The units of token ids with which an answer begins, and that end at a cut; None where they are perhaps the
        beginning of its tag.
        """
        for end in range(1, len(tokens) + 1):
            if end < len(tokens) and not self.is_cut(tokens, end):
                continue
            units = self.of_beginning(tuple(tokens[:end]))
            if units is not None:
                return [*units, *self.read(tokens[end:])] if end < len(tokens) else list(units)
        return None
