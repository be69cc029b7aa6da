"""Partial model collapse: the algorithm, as a source of training rows.

Round by round, the model answers the forget questions itself, the answer least like its original one is kept, and it is
fine-tuned on the kept answers together with retain data (Scholten et al., "Model Collapse Is Not a Bug but a Feature in
Machine Unlearning for LLMs", ICLR 2026). The updates are those of `training.loop.fit`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.packing import FORGET, REFUSAL, Row
from pmc_jax.data.prompts import training_row
from pmc_jax.methods.asked import PROMPT_MULTIPLE, Asking
from pmc_jax.methods.guard import Guard
from pmc_jax.methods.memory import Memory, after_round, keep_best, unsolved, without_last_epoch
from pmc_jax.methods.prefixes import NO_PREFIXES, Prefixes, Split, behind_prefix
from pmc_jax.methods.refusals import draw_refusals, weigh_refusals
from pmc_jax.methods.rewards import check_references, resolve_reward
from pmc_jax.methods.round_summary import Drawn, describe_samples, summarise
from pmc_jax.methods.schedule import SELECTION, Schedule, draw_retain_rows, round_questions
from pmc_jax.methods.scoring import Scorer, make_scorer, scores_across_processes
from pmc_jax.methods.selection import select
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.prompts import Prompts, left_pad
from pmc_jax.sampling.pruning import candidate_pruner
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.batching import ExpectedRows, even_batches
from pmc_jax.training.settings import updates_per_epoch
from pmc_jax.training.source import Round, Updates, mean_metric


class PmcSettings(NamedTuple):
    """The settings of PMC itself.

    Attributes:
        reward: name of what likeness to the original answer is measured by.
        guard: raises the scores of answers that are not wanted, and lowers those of refusals.
        refusals: what PMC-alignment leads forget questions to; empty = plain PMC.
        retain_rows: beside each forget row of an update.
        selection: which sample is kept, "lowest" or "bradley_terry".
        selection_temperature: softmax temperature of the rewards, for bradley_terry.
        keep_best: a new pick replaces the stored answer only if it scores no worse.
        skip_solved: a solved question is not sampled again.
        stop_solved: epochs after the one that has solved and learnt nine of ten questions; 0 = all epochs are run.
        prune_candidates: a sample that can no longer be the one kept is not drawn to its end.
        measure_every: epochs between rewards measured on whole samples.
        batch_size: forget rows of an update.
        max_length: tokens of a training row.
        reference_tokens: longest greedy answer of the original model.
        prefixes: prompts beside each question that have a part of the original answer given.
    """

    reward: str
    guard: Guard
    refusals: tuple[str, ...]
    retain_rows: int
    selection: str
    selection_temperature: float
    keep_best: bool
    skip_solved: bool
    stop_solved: int
    prune_candidates: bool
    measure_every: int
    batch_size: int
    max_length: int
    reference_tokens: int
    prefixes: Prefixes = NO_PREFIXES


class PmcSource:
    """The rows of PMC's rounds: sample, score, select, remember. What is kept between rounds is the `Memory`.

    Args:
        settings: of PMC.
        schedule: which questions a round has; prefixed rows are questions like others.
        sampler: samples answers; without parameters, as each round has its own.
        questions: the forget questions.
        retain: training rows of the retain data.
        references: the original model's answers; None = they are sampled before the first round.
    """

    def __init__(
        self,
        settings: PmcSettings,
        schedule: Schedule,
        sampler: Sampler,
        questions: list[str],
        retain: list[Row],
        references: list[str] | None = None,
    ):
        self.settings, self.schedule, self.sampler = settings, schedule, sampler
        self.questions, self.retain, self.references = questions, retain, references
        self.rounds = schedule.rounds
        self.updates_per_epoch = updates_per_epoch(schedule.questions, schedule.round_size, settings.batch_size)

    def round(self, number: int, memory: Memory, current: Callable[[], PretrainedModel], clock: Clock) -> Round:
        """Steps 1 to 5 of a round of the algorithm (the update, step 6, is the loop's)."""
        epoch, questions = round_questions(self.schedule, number)
        asked, memory = self.asking.epoch(epoch), without_last_epoch(memory, questions)
        unsolved_questions = unsolved(memory, questions, self.settings.skip_solved)
        drawn = None
        if len(unsolved_questions):
            shortest_first = np.argsort([memory.lengths[q] for q in unsolved_questions], kind="stable")
            sampled = unsolved_questions[shortest_first]
            with clock.phase("sample"):
                scorer = asked.scorer.at(sampled)
                tokens = self.sample(current, asked.prompts, sampled, scorer, memory, number)
            with clock.phase("score"):
                answers, scores_QS = scores_across_processes(scorer, tokens)
                chosen_Q = self.select(scores_QS, asked.prompts.keys_Q[sampled], number)
            drawn = Drawn(sampled, tokens, answers, scores_QS, chosen_Q)
            picks = drawn.picks(self.sampler.text, asked.splits)
            memory = keep_best(memory, *picks, always=not self.settings.keep_best)
        with clock.phase("update"):
            batches = self.batches(number, memory)
        seen = describe_samples(drawn, self.questions, asked, memory) if drawn else []
        told = summarise(epoch, self.whole_samples(number), memory, seen)
        return Round(batches, memory, told, seen)

    def rate(self, memory: Memory) -> float:
        """All of the schedule's rate until enough questions are solved, then less each epoch; 0 after `stop_solved`."""
        rounds = self.settings.stop_solved * self.schedule.rounds_per_epoch
        return max(0.0, 1.0 - memory.rounds_solved / (rounds + 1)) if rounds else 1.0

    def sample(
        self,
        current: Callable[[], PretrainedModel],
        prompts: Prompts,
        questions: np.ndarray,
        scorer: Scorer,
        memory: Memory,
        number: int,
    ) -> list[list[list[int]]]:
        """Samples of each question from the current model, [question][sample] -> token ids."""
        prune = None
        if self.prunes_candidates:
            stored = [memory.scores[q] if self.settings.keep_best else None for q in questions]
            num_samples, end_tokens = self.sampler.sampling.num_samples, self.sampler.text.end_tokens
            prune = candidate_pruner(scorer, stored, num_samples, end_tokens, self.whole_samples(number))
        # This sampler is not kept: its parameters may be a copy.
        sampler = self.sampler.with_params(current().params)
        return sampler.tokens(prompts.take(questions), round_index=number, prune=prune)

    def select(self, scores_QS: np.ndarray, keys_Q: np.ndarray, number: int) -> np.ndarray:
        """Which sample of each question is picked."""
        s = self.settings
        seeds = [[SELECTION, self.schedule.seed, number, int(key)] for key in keys_Q]
        return select(scores_QS, s.selection, s.selection_temperature, seeds)

    def batches(self, number: int, memory: Memory) -> list[list[Row]]:
        """The training rows of a round's updates: stored answers, as many retain rows, and refusals."""
        s, seed = self.settings, self.schedule.seed
        epoch, questions = round_questions(self.schedule, number)
        splits = self.asking.epoch(epoch).splits
        groups = [[self.forget_row(q, memory.answers[q], splits[q], self.longest_row) for q in questions]]
        groups += [draw_retain_rows(seed, epoch, questions, self.retain, number) for number in range(s.retain_rows)]
        if s.refusals:
            texts = draw_refusals(seed, epoch, questions, s.refusals)
            groups.append([self.refusal_row(q, text, memory.scores[q]) for q, text in zip(questions, texts)])
        return [weigh_refusals(rows) for rows in even_batches(list(zip(*groups)), s.batch_size)]

    def begin(self, notes: dict[str, Any] | None, clock: Clock) -> Memory:
        """The memory of the last saved round, or one of the original model's own answers."""
        if notes:
            memory = Memory(**notes["memory"])
        else:
            references = self.references
            if references is None:
                with clock.phase("sample"):
                    references = self.greedy_answers()
            check_references(self.settings.reward, self.questions, references)
            lengths = [float(len(self.sampler.text.answer(r))) for r in references]
            lengths *= 1 + self.settings.prefixes.rows
            memory = Memory(list(references), [""] * len(lengths), [None] * len(lengths), lengths)
        s, sampler, questions, references = self.settings, self.sampler, self.questions, memory.references
        scorer = make_scorer(s.reward, questions, references, sampler.text, s.guard)
        seed, longest = self.schedule.seed, s.max_length
        self.asking = Asking(s.prefixes, seed, sampler, scorer, questions, references, longest)
        return memory

    def notes(self, memory: Memory) -> dict[str, Any]:
        """The memory as JSON."""
        return {"memory": memory._asdict()}

    def expected_rows(self, memory: Memory) -> ExpectedRows:
        """Rows with the original answers, the retain rows, and refusals."""
        splits, longest_row = self.asking.epoch(0).splits, self.settings.max_length
        references = memory.references * (1 + self.settings.prefixes.rows)
        forget = [self.forget_row(q, *asked, longest_row) for q, asked in enumerate(zip(references, splits))]
        longest = max(range(len(self.questions)), key=lambda q: len(self.sampler.text.prompt(self.questions[q])))
        refusals = [self.refusal_row(longest, text, 1.0) for text in self.settings.refusals]
        groups = tuple(rows for rows in (forget, *[self.retain] * self.settings.retain_rows, refusals) if rows)
        return ExpectedRows(groups, self.longest_row, self.schedule.round_size)

    def losses(self, updates: Updates) -> dict[str, float]:
        """Means over the round's updates."""
        names = ["forget_loss", "retain_loss", *(["refusal_loss"] if self.settings.refusals else [])]
        return {name: mean_metric(updates, name) for name in names}

    def learnt(self, memory: Memory, line: dict[str, Any]) -> Memory:
        """The memory, the round counted."""
        return after_round(memory, line["forget_loss"])

    def greedy_answers(self) -> list[str]:
        """The original model's answers, whole also where samples are kept short."""
        longest = self.settings.reference_tokens
        sampler = self.sampler.with_params(self.sampler.checkpoint.params).with_capacity(None)
        greedy = sampler.with_sampling(num_samples=1, temperature=0.0, max_new_tokens=longest)
        prompts = left_pad([greedy.text.prompt(q) for q in self.questions], self.questions, PROMPT_MULTIPLE)
        return [greedy.text.read(samples[0]) for samples in greedy.tokens(prompts)]

    def forget_row(self, question: int, answer: str, split: Split, max_length: int) -> Row:
        """A training row of a question and an answer, without labels on what was given of it."""
        text = self.questions[question % len(self.questions)]
        return behind_prefix(training_row(self.sampler.text, text, answer, max_length, FORGET), split.given)

    def refusal_row(self, question: int, refusal: str, weight: float) -> Row:
        """A training row of a question and a refusal of it, also beside a prefixed row of the question."""
        text = self.questions[question % len(self.questions)]
        row = training_row(self.sampler.text, text, refusal, self.settings.max_length, REFUSAL)
        return row._replace(weight=weight)

    @property
    def longest_row(self) -> int:
        """Tokens of the longest forget row: a prompt, and as many tokens as may be drawn. The same on every mesh.

        An answer that takes more tokens as text than may be drawn is cut to those.
        """
        drawn = self.asking.plain.prompts.tokens_QP.shape[1] + self.sampler.sampling.max_new_tokens
        return min(self.settings.max_length, drawn)

    @property
    def prunes_candidates(self) -> bool:
        """Whether samples that have lost are stopped: asked for, and the score of an unfinished answer has a bound."""
        wanted = self.settings.prune_candidates and self.settings.selection == "lowest"
        return wanted and resolve_reward(self.settings.reward).lower_bound is not None

    def whole_samples(self, number: int) -> int:
        """How many samples of each question are drawn to their end in round `number`, whatever they hold.

        All, or one in the epochs whose rewards are measured, or none.
        """
        if not self.prunes_candidates:
            return self.sampler.sampling.num_samples
        epoch = number // self.schedule.rounds_per_epoch
        return int(epoch % self.settings.measure_every == 0 or epoch == self.schedule.epochs - 1)
