"""Prompts as arrays: left-padded tokens, a key for each question's draws, and drafts of the answers."""

import zlib
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.packing import round_up

PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that several sets of them share a compiled shape
DRAFT_MULTIPLE = 8
DRAFT_SHARE = 0.75  # this share of the drafts is read whole: most samples leave the longest drafts before their end


class Prompts(NamedTuple):
    """Left-padded prompts of Q questions, with a draft of the answer each.

    Attributes:
        tokens_QP: int32, token ids.
        mask_QP: bool, True on real tokens.
        keys_Q: uint32, a stable number of the question, by which its draws are keyed.
        drafts_QA: int32, the tokens of a draft answer, -1 where there is none. The last slot holds an end token or -1:
            what comes after it is not read.
    """

    tokens_QP: np.ndarray
    mask_QP: np.ndarray
    keys_Q: np.ndarray
    drafts_QA: np.ndarray

    def take(self, which: Any) -> "Prompts":
        """Those of some questions. which: a slice, or an array of indices."""
        return Prompts(*(x[which] for x in self))


def question_key(text: str) -> int:
    """A stable 32-bit number of a question's text: its draws are the same alone or among others, in any order."""
    return zlib.crc32(text.encode())


def left_pad(
    token_lists: list[list[int]], texts: list[str], multiple: int = PROMPT_MULTIPLE, longest: int = 0
) -> Prompts:
    """Prompts without drafts from ragged token lists.

    Args:
        token_lists: the token ids of each prompt.
        texts: the question of each prompt, by which its draws are keyed.
        multiple: the width is that of the longest prompt, rounded up to a multiple of this.
        longest: tokens of the longest prompt that shares this width with these; 0 = it is one of these.

    Returns:
        Prompts whose drafts have one slot, -1.
    """
    width = round_up(max(longest, *map(len, token_lists)), multiple)
    tokens, mask = np.zeros((len(token_lists), width), np.int32), np.zeros((len(token_lists), width), bool)
    for row, ids in enumerate(token_lists):
        tokens[row, width - len(ids) :] = ids
        mask[row, width - len(ids) :] = True
    keys = np.array([question_key(t) for t in texts], np.uint32)
    return Prompts(tokens, mask, keys, np.full((len(token_lists), 1), -1, np.int32))


def with_drafts(
    prompts: Prompts, drafts: list[list[int]], end_tokens: tuple[int, ...], max_new_tokens: int, slots: int = 0
) -> Prompts:
    """The prompts with a draft each: an answer that their samples may well begin with.

    The samples are the same with and without drafts. They come sooner where they begin with their draft.

    Args:
        prompts: Q prompts.
        drafts: the token ids of Q draft answers.
        end_tokens: ids that end an answer.
        max_new_tokens: tokens that an answer may have.
        slots: for a draft; 0 = as suits the lengths of these.
    """
    slots = slots or draft_slots([len(d) for d in drafts], max_new_tokens)
    drafts_QA = np.full((len(drafts), slots), -1, np.int32)
    for row, ids in enumerate(drafts):
        drafts_QA[row, : len(ids)] = ids[:slots]
    drafts_QA[:, -1] = np.where(np.isin(drafts_QA[:, -1], end_tokens), drafts_QA[:, -1], -1)
    return prompts._replace(drafts_QA=drafts_QA)


def draft_slots(lengths: list[int], max_new_tokens: int) -> int:
    """Slots for drafts of these lengths. All slots but the last one are read."""
    longest_read = int(np.quantile(lengths, DRAFT_SHARE, method="higher"))
    return min(round_up(max(1, longest_read - 1), DRAFT_MULTIPLE) + 1, max_new_tokens)


def accepted_length(draft_A: np.ndarray, tokens: list[int]) -> int:
    """How many tokens an answer has of its draft, counted from the first one."""
    length = min(len(tokens), len(draft_A))
    return int(np.cumprod(np.equal(tokens[:length], draft_A[:length])).sum())
