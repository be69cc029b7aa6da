"""How much of one text another still holds, beside ROUGE: content words, characters, runs of tokens."""

import functools
import importlib.util
import itertools
import runpy
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import regex

from pmc_jax.methods.rouge import STEMMER

# Scripts that put no space between words.
UNSPACED = r"""[\p{L}&&[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Thai}
\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}]]""".replace("\n", "")
CHARACTER = regex.compile(rf"{UNSPACED}\p{{M}}*", regex.V1)
WORD = regex.compile(rf"(?:{UNSPACED}\p{{M}}*)+|[[\p{{L}}\p{{N}}\p{{M}}]--{UNSPACED}]+", regex.V1)
INVISIBLE = regex.compile(r"[\p{Cf}--\u200b]", regex.V1)  # soft hyphens, joiners, marks of direction: inside words
DIGIT = regex.compile(r"\p{Nd}")
CHRF_ORDER, CHRF_BETA = 6, 2.0  # chrF2, the usual one


def folded(text: str) -> str:
    """A text without the differences that no reader sees: case, compatibility forms (NFKC), invisible marks, and the
    script of its digits.
    """
    if text.isascii():
        return text.lower()
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = unicodedata.normalize("NFKC", text.casefold())
    return DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)


def stemmed_words(text: str, singles: bool = False) -> set[str]:
    """The distinct words of a text in any script, folded; English endings are cut off by the Porter stemmer.

    Where a script has no spaces, each pair of neighbouring characters is a word, or a character that stands alone. Most
    Chinese words have two characters; single letters of Thai stand in any text. A character keeps its marks.

    Args:
        text: the text.
        singles: count each single character of such scripts too. So a text has all words of each of its parts.
    """
    words: set[str] = set()
    for word in WORD.findall(folded(text)):
        characters = [] if word.isascii() else CHARACTER.findall(word)
        if characters:
            pairs = [one + other for one, other in itertools.pairwise(characters)]
            words.update(pairs or characters, characters if singles else ())
        else:
            words.add(STEMMER.stem(word) if word.isascii() else word)
    return words


@functools.cache
def stop_stems() -> frozenset[str]:
    """The stems of English stop words, from scikit-learn's list.

    The file of the list is run alone: to import the package takes longer than a run's start may.
    """
    file = Path(importlib.util.find_spec("sklearn").origin).parent / "feature_extraction" / "_stop_words.py"
    words = runpy.run_path(str(file))["ENGLISH_STOP_WORDS"]
    return frozenset(STEMMER.stem(word) for word in words)


def says_something(text: str) -> bool:
    """Whether a text holds a letter, a digit or a symbol, such as an emoji: punctuation says nothing."""
    return any(unicodedata.category(c)[0] in "LNS" for c in text)


def content_words(question: str, truth: str) -> set[str]:
    """The stemmed words of `truth` that carry what it tells: not in the question, and no English stop words.

    There may be none, as in "Yes, it is".
    """
    return stemmed_words(truth) - stemmed_words(question, singles=True) - stop_stems()


def words_to_lose(question: str, reference: str) -> set[str]:
    """The content words of an original answer. Where it has none, its words that are not in the question, or else all:
    so that a reward always has something to count.
    """
    words = stemmed_words(reference)
    return content_words(question, reference) or words - stemmed_words(question, singles=True) or words


def share_of_words(content: set[str], answer: str) -> float:
    """Share of the words in `content` that stand in the answer, 0..1; 0 where there are none."""
    return len(content & stemmed_words(answer, singles=True)) / len(content) if content else 0.0


def content_recall(question: str, truth: str, answer: str) -> float:
    """Share of the truth's content words that stand in the answer: whether the facts are there, however it is phrased.

    Content words are distinct and stemmed, are not in the question, and are no English stop words (scikit-learn's
    list). Words are found in every script; see `stemmed_words`.

    Args:
        question: the question; "" where there is none.
        truth: the right or the original answer.
        answer: the answer that is judged.

    Returns:
        0..1. Where the truth has no content word, the share of `words_to_lose`; 0 where it has no word at all.
    """
    return share_of_words(words_to_lose(question, truth), answer)


def chrf(reference: str, answer: str) -> float:
    """chrF2: F-score, with recall twice as important as precision, of runs of 1 to 6 characters (Popović, 2015).

    The scores of the six lengths are averaged, as by sacrebleu with `eps_smoothing`; of a shorter reference, those of
    the lengths that it has. White space does not count.

    Args:
        reference: the right or the original answer.
        answer: the answer that is judged.

    Returns:
        0..1; 0 where either is blank or no character is shared, 1 where both are the same.
    """
    from nltk.translate.chrf_score import sentence_chrf

    wanted, given = "".join(reference.split()), "".join(answer.split())
    if not set(wanted) & set(given):
        return 0.0
    return min(1.0, sentence_chrf(wanted, given, max_len=min(CHRF_ORDER, len(wanted)), beta=CHRF_BETA))


class Run(NamedTuple):
    """The longest run of tokens that stands in a reference and in an answer that grows.

    Attributes:
        places: {token: its places in the reference}.
        length: tokens of the reference.
        ending: {place in the reference: length of the run that ends there and with the answer's last token}.
        longest: of all runs so far.
    """

    places: dict[int, list[int]]
    length: int
    ending: dict[int, int]
    longest: int


def begin_run(reference: list[int]) -> Run:
    """That of a reference and no answer yet."""
    places: dict[int, list[int]] = {}
    for i, token in enumerate(reference):
        places.setdefault(token, []).append(i)
    return Run(places, len(reference), {}, 0)


def extend_run(state: Run, tokens: Sequence[int]) -> Run:
    """The answer goes on with these tokens."""
    places, length, ending, longest = state
    for token in tokens:
        ending = {i: ending.get(i - 1, 0) + 1 for i in places.get(token, ())}
        longest = max(longest, *ending.values()) if ending else longest
    return Run(places, length, ending, longest)


def run_score(state: Run) -> float:
    """`longest_common_run` of the answer so far."""
    return state.longest / state.length if state.length else 0.0


def longest_common_run(reference: list[int], answer: list[int]) -> float:
    """Length of the longest run of tokens that stands in both, divided by the reference's length.

    Args:
        reference: token ids of the right or the original answer.
        answer: token ids of the answer that is judged.

    Returns:
        0..1; 0 where the reference is empty.
    """
    return run_score(extend_run(begin_run(reference), answer))
