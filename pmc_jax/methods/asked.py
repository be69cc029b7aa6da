"""What each epoch of PMC asks: the forget questions, and beside them those with a prefix of the original answer.

Both are the same to all that comes after: a prompt, and what its answers are not to be.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pmc_jax.methods.prefixes import Original, Prefixes, Split, draw_splits, word_range
from pmc_jax.methods.scoring import Scorer
from pmc_jax.sampling.prompts import Prompts, left_pad, with_drafts
from pmc_jax.sampling.sampler import Sampler

PROMPT_MULTIPLE = 8  # prompts of a run are padded to one width, a multiple of it


class Asked(NamedTuple):
    """What one epoch asks: Q questions, then Q of the first prefixed row, and so on.

    Attributes:
        prompts: of all, with drafts.
        scorer: of all.
        splits: of all: what is given of the original answer.
        prefixes: the text that is given, in the order of the prompts; None for the questions themselves.
    """

    prompts: Prompts
    scorer: Scorer
    splits: list[Split]
    prefixes: Sequence[str | None]


class Asking:
    """Draws what each epoch asks. All epochs have one width of prompts and of drafts: nothing is compiled anew.

    Args:
        prefixes: how many there are, and how long they are.
        seed: of the draws.
        sampler: its tokenizer, template, and longest answer.
        scorer: of the questions.
        questions: the forget questions.
        references: the original model's answers.
        max_length: tokens of a training row: a prefix leaves room for an answer.
    """

    def __init__(
        self,
        prefixes: Prefixes,
        seed: int,
        sampler: Sampler,
        scorer: Scorer,
        questions: list[str],
        references: list[str],
        max_length: int,
    ):
        text = sampler.text
        self.prefixes, self.seed, self.questions = prefixes, seed, questions
        self.end_tokens, self.longest_answer = text.end_tokens, sampler.sampling.max_new_tokens
        self.token_lists = [text.prompt(question) for question in questions]
        self.originals = []
        if prefixes.rows:
            rooms = (max_length - len(tokens) - 1 for tokens in self.token_lists)
            self.originals = [Original(text, reference, room) for reference, room in zip(references, rooms)]
        ends = [len(o.split(word_range(prefixes, o.words)[1]).given) for o in self.originals]
        self.longest = max((len(tokens) + end for tokens, end in zip(self.token_lists, ends)), default=0)
        splits = [Split([], "", reference, text.answer(reference)) for reference in references]
        self.plain = Asked(self.prompts(splits), scorer, splits, [None] * len(splits))
        self.drawn = -1, self.plain

    def prompts(self, splits: list[Split], slots: int = 0) -> Prompts:
        """The prompts with what is given, and drafts of what follows. slots: for a draft."""
        rows = range(len(splits) // len(self.questions))
        # Samples are drawn along the original answers: those of the first rounds still begin with them.
        token_lists = [tokens + split.given for tokens, split in zip(self.token_lists * len(rows), splits)]
        keys = [f"{question}\0{row}" if row else question for row in rows for question in self.questions]
        prompts = left_pad(token_lists, keys, PROMPT_MULTIPLE, self.longest)
        drafts = [split.draft for split in splits]
        return with_drafts(prompts, drafts, self.end_tokens, self.longest_answer, slots)

    def epoch(self, number: int) -> Asked:
        """What epoch `number` asks: the same whenever, and on whichever process, it is asked for."""
        if self.prefixes.rows and self.drawn[0] != number:
            more = draw_splits(self.prefixes, self.originals, self.seed, number)
            splits = [*self.plain.splits, *more]
            given = [f"{q} {split.prefix}" for q, split in zip(self.questions * self.prefixes.rows, more)]
            scorer = self.plain.scorer.with_more(given, [s.rest for s in more], [s.draft for s in more])
            prompts = self.prompts(splits, self.plain.prompts.drafts_QA.shape[1])
            self.drawn = number, Asked(prompts, scorer, splits, [*self.plain.prefixes, *(s.prefix for s in more)])
        return self.drawn[1]
