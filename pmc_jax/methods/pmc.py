"""Partial model collapse: the algorithm.

Round by round, the model answers the forget questions itself, the answer least like its original one is kept, and it is
fine-tuned on the kept answers together with retain data (Scholten et al., "Model Collapse Is Not a Bug but a Feature in
Machine Unlearning for LLMs", ICLR 2026).
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import questions
from pmc_jax.data.packing import FORGET, RETAIN, Packing, Row
from pmc_jax.data.prompts import training_row
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.methods.memory import Memory, keep_best, unsolved
from pmc_jax.methods.rewards import check_reference, make_scorer, resolve_reward, scores_across_processes
from pmc_jax.methods.selection import select
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import round_sampler, text_of
from pmc_jax.sampling.prompts import Prompts, accepted_length, left_pad, with_drafts
from pmc_jax.sampling.pruning import candidate_pruner
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import (
    check_finite,
    check_length,
    compile_update,
    even_batches,
    start_packing,
    train_on,
    trained,
    with_remat,
)
from pmc_jax.training.resume import begin, is_saved

ORDER, RETAIN_DRAW, SELECTION = 1, 2, 3  # first word of a numpy seed: these streams never meet


class Forget(NamedTuple):
    """The forget questions, ready to be sampled. texts: the questions; prompts: their padded tokens."""

    texts: list[str]
    prompts: Prompts

    def with_drafts(self, generator: Sampler, answers: list[str]) -> "Forget":
        """The questions with the original answers as drafts: the first rounds' samples still begin with them."""
        drafts = [generator.text.answer(a) for a in answers]
        return self._replace(
            prompts=with_drafts(self.prompts, drafts, generator.text.end_tokens, generator.sampling.max_new_tokens)
        )


def rounds_per_epoch(config: ConfigDict, num_questions: int) -> int:
    """How many rounds cover all questions once."""
    return -(-num_questions // (config.pmc.questions_per_round or num_questions))


def round_questions(config: ConfigDict, num_questions: int, number: int) -> tuple[int, np.ndarray]:
    """(epoch, indices of this round's questions): each epoch goes through all of them in an order drawn from (seed,
    epoch).
    """
    epoch, part = divmod(number, rounds_per_epoch(config, num_questions))
    order = np.random.default_rng([ORDER, config.seed, epoch]).permutation(num_questions)
    size = config.pmc.questions_per_round or num_questions
    return epoch, order[part * size : (part + 1) * size]


def retain_rows_for(config: ConfigDict, epoch: int, which: np.ndarray, retain: list[Row]) -> list[Row]:
    """One retain row per forget question, uniform, drawn from (seed, epoch, question)."""
    return [
        retain[np.random.default_rng([RETAIN_DRAW, config.seed, epoch, int(q)]).integers(len(retain))] for q in which
    ]


def longest_row(config: ConfigDict, forget: Forget) -> int:
    """Tokens of the longest training row to come: a prompt, and as many tokens as may be drawn. The same on every
    mesh.
    """
    return min(config.train.max_length, forget.prompts.tokens_QP.shape[1] + config.sample.max_new_tokens)


def round_batches(config, text: Any, forget: Forget, memory: Memory, retain: list[Row], epoch: int, which: np.ndarray):
    """The training rows of a round's updates: stored answers and as many retain rows, at most `train.batch_size` of
    each an update.

    An answer that takes more tokens as text than may be drawn is cut to those.
    """
    longest = longest_row(config, forget)
    rows = [training_row(text, forget.texts[q], memory.answers[q], longest, group=FORGET) for q in which]
    return even_batches(list(zip(rows, retain_rows_for(config, epoch, which, retain))), config.train.batch_size)


def prunes_candidates(config: ConfigDict) -> bool:
    """Whether samples that have lost are stopped: asked for, and the score of an unfinished answer has a bound."""
    wanted = config.pmc.prune_candidates and config.pmc.selection == "lowest"
    return wanted and resolve_reward(config.pmc.reward).lower_bound is not None


def whole_samples(config: ConfigDict, epoch: int) -> int:
    """How many samples of each question are drawn to their end whatever they hold: all, or one in the epochs whose
    rewards are measured, or none.
    """
    if not prunes_candidates(config):
        return config.sample.num_samples
    return int(epoch % config.pmc.measure_every == 0 or epoch == config.train.epochs - 1)


def collapse_round(
    config,
    generator: Sampler,
    forget: Forget,
    memory: Memory,
    number: int,
    which: np.ndarray,
    whole: int,
    clock: Clock,
):
    """Steps 1-5 of a round: sample, score, select, remember. Returns the memory and what was seen, one dict a sampled
    question.

    whole: samples of each question that are drawn to their end whatever they hold.
    """
    todo = unsolved(memory, which, config.pmc.skip_solved)
    if not len(todo):
        return memory, []
    todo = todo[np.argsort([memory.lengths[q] for q in todo], kind="stable")]
    with clock.phase("sample"):
        texts, references = [forget.texts[q] for q in todo], [memory.references[q] for q in todo]
        scorer = make_scorer(config.pmc.reward, texts, references, generator.text, config.pmc.min_words)
        stored = [memory.scores[q] if config.pmc.keep_best else None for q in todo]
        prune = (
            candidate_pruner(scorer, stored, generator.sampling.num_samples, generator.text.end_tokens, whole)
            if prunes_candidates(config)
            else None
        )
        prompts = forget.prompts.take(todo)
        tokens = generator.tokens(prompts, round_index=number, prune=prune)
    with clock.phase("score"):
        answers, scores_QS = scores_across_processes(scorer, tokens)
        seeds = [[SELECTION, config.seed, number, int(forget.prompts.keys_Q[q])] for q in todo]
        chosen = select(scores_QS, config.pmc.selection, config.pmc.selection_temperature, seeds)
    picks = [samples[c] for samples, c in zip(answers, chosen)]
    picked = [float(row[c]) for row, c in zip(scores_QS, chosen)]
    lengths = [[len(t) for t in samples] for samples in tokens]
    original = [[accepted_length(draft_A, t) for t in samples] for draft_A, samples in zip(prompts.drafts_QA, tokens)]
    memory = keep_best(
        memory, todo, picks, picked, [float(np.mean(n)) for n in lengths], always=not config.pmc.keep_best
    )
    seen = [
        {
            "question": forget.texts[q],
            "samples": a,
            "scores": s.tolist(),
            "chosen": int(c),
            "tokens": n,
            "original_tokens": o,
            "stored_score": memory.scores[q],
        }
        for q, a, s, c, n, o in zip(todo, answers, scores_QS, chosen, lengths, original)
    ]
    return memory, seen


def summarise(
    number: int, epoch: int, whole: int, memory: Memory, seen: list[dict[str, Any]], updates: list[dict[str, float]]
) -> dict[str, Any]:
    """One line about a round. reward = 1 - score, over the `whole` samples drawn to their end whatever they hold; None
    when there are none.

    original_tokens: of the sampled ones, those up to where a sample leaves the original answer (as far as that is a
    draft).
    """
    rewards = 1 - np.array([s["scores"][:whole] for s in seen]) if seen and whole else None
    known = [s for s in memory.scores if s is not None]
    return {
        "round": number,
        "epoch": epoch,
        "sampled_questions": len(seen),
        "sampled_tokens": sum(sum(s["tokens"]) for s in seen),
        "original_tokens": sum(sum(s["original_tokens"]) for s in seen),
        "reward_mean": None if rewards is None else float(rewards.mean()),
        "reward_std": None if rewards is None else float(rewards.std()),
        "stored_score": float(np.mean(known)),
        "solved": float(np.mean([s == 0.0 for s in memory.scores])),
        "forget_loss": float(np.mean([u["forget_loss"] for u in updates])),
        "retain_loss": float(np.mean([u["retain_loss"] for u in updates])),
    }


def check_sizes(config: ConfigDict, forget: list, retain: list) -> None:
    """UserError when the data cannot fill what the settings ask for."""
    for name, value in (
        ("train.batch_size", config.train.batch_size),
        ("pmc.questions_per_round", config.pmc.questions_per_round),
    ):
        if value > len(forget):
            raise UserError(
                f"{name}={value}: there are only {len(forget)} forget questions; choose at most {len(forget)}"
            )
    if not retain:
        raise UserError("the retain data has no rows")


def check_inputs(checkpoint: PretrainedModel, config: ConfigDict, forget: list[dict], retain: list[dict]) -> None:
    """UserError for what would end a run after the model was evaluated: rows, or prompts, that are longer than they may
    be.
    """
    check_length(config, checkpoint.config.rope)
    text = text_of(checkpoint, config)
    for row in [*forget, *retain]:
        training_row(text, row["question"], "", config.train.max_length, group=FORGET)


def prepare(
    checkpoint: PretrainedModel, config: ConfigDict, forget: list[dict], retain: list[dict]
) -> tuple[Sampler, Forget, list[Row]]:
    """What all rounds share: the sampler, the forget questions as its prompts, the retain rows as training rows."""
    generator = round_sampler(checkpoint, config, capacity=config.pmc.questions_per_round or len(forget))
    texts = [row["question"] for row in forget]
    prompts = left_pad([generator.text.prompt(q) for q in texts], texts, multiple=8)  # one shape all along
    rows = [
        training_row(generator.text, r["question"], r["answer"], config.train.max_length, group=RETAIN) for r in retain
    ]
    return generator, Forget(texts, prompts), rows


def unlearn(
    checkpoint: PretrainedModel,
    forget: list[Any],
    retain: list[dict[str, str]],
    config: ConfigDict | None = None,
    *,
    references: list[str] | None = None,
    rounds: RoundCheckpointer | None = None,
    clock: Clock | None = None,
    on_round: Callable[[dict[str, Any], list[dict[str, Any]], list[dict[str, float]]], None] | None = None,
    on_evaluate: Callable[[int, PretrainedModel], None] | None = None,
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """Unlearn the forget questions by partial model collapse.

    checkpoint: from `load`. forget: questions, as texts or as dicts with "question"; answers are not looked at.
    retain: dicts with "question" and "answer".
    config: from `pmc_jax.config.default()`; what its `model.*` and `mesh.*` say, `load` has decided already.
    references: the untouched model's greedy answers, where they are known already.
    rounds: where each round is saved, and from where a run is resumed. clock: adds up seconds by phase.
    on_round: called after each round with its summary, what was sampled, and its updates' losses. on_evaluate: called
    every `evaluate.every` rounds with the round's number and the checkpoint as it is then; the last round's is the one
    returned and left to the caller. Returns the checkpoint with new parameters, and the history: one summary a round,
    that of earlier rounds included when resumed.
    """
    config = settings.check(config if config is not None else settings.default())
    rows = [{"question": q} if isinstance(q, str) else q for q in forget]
    questions.check_rows(rows, "forget", ("question",))
    questions.check_rows(retain, "retain", ("question", "answer"))
    check_sizes(config, rows, retain)
    resolve_reward(config.pmc.reward)
    check_length(config, checkpoint.config.rope)
    checkpoint = with_remat(checkpoint, config)
    with clock or Clock() as clock:
        generator, forget, retain_rows = prepare(checkpoint, config, rows, retain)
        total = config.train.epochs * rounds_per_epoch(config, len(rows))
        recipe, state, notes = begin(checkpoint, config, len(rows), rounds, clock, config.pmc.questions_per_round)
        history = notes["history"] if notes else []
        memory = Memory(**notes["memory"]) if notes else remember(config, generator, forget, references, clock)
        forget = forget.with_drafts(generator, memory.references)
        packing = plan_rows(config, generator, forget, memory, retain_rows, meshes.mesh_of(state.params))
        generator = generator._replace(
            params=None
        )  # each round has its own: a copy laid out for decoding is most of a large model's memory
        compiled = compile_update(checkpoint, recipe, state, packing, retain_rows[0])
        for number in range(len(history), total):
            start = time.perf_counter()
            epoch, which = round_questions(config, len(rows), number)
            whole = whole_samples(config, epoch)
            now = generator.with_params(trained(checkpoint, recipe, state).params)
            memory, seen = collapse_round(config, now, forget, memory, number, which, whole, clock)
            del now  # its parameters may be a copy
            with clock.phase("compile"):
                step = compiled.result()
            clock.seconds.setdefault("first_update", clock.total())
            with clock.phase("update"):
                batches = round_batches(config, generator.text, forget, memory, retain_rows, epoch, which)
                state, updates = train_on(step, state, batches, packing)
            check_finite(updates, f"round {number}")
            history.append(
                summarise(number, epoch, whole, memory, seen, updates) | {"seconds": time.perf_counter() - start}
            )
            if (
                on_evaluate
                and config.evaluate.every
                and (number + 1) % config.evaluate.every == 0
                and number + 1 < total
            ):
                with clock.phase("evaluate"):
                    on_evaluate(number, trained(checkpoint, recipe, state))
            with clock.phase("save"):
                # Lines of a round that a kill left unsaved are dropped on resume; the other way round they would be
                # lost.
                if on_round:
                    on_round(history[-1], seen, updates)
                if rounds and is_saved(config, number, total):
                    # Copies: the notes are written while the next round adds to both.
                    rounds.save(
                        number,
                        state,
                        {"memory": memory._asdict(), "history": list(history), "seconds": dict(clock.seconds)},
                    )
    return trained(checkpoint, recipe, state), history


def remember(
    config: ConfigDict, generator: Sampler, forget: Forget, references: list[str] | None, clock: Clock
) -> Memory:
    """The memory before the first round: of the original model's own answers, which are sampled where they are not
    given.

    UserError for an answer that the score cannot see: whatever is sampled would count as unlike it, and nothing would
    be forgotten.
    """
    if references is None:
        with clock.phase("sample"):
            longest = (
                config.evaluate.max_new_tokens
            )  # whole answers, as the command line's, also when samples are kept short
            greedy = generator.with_sampling(num_samples=1, temperature=0.0, max_new_tokens=longest).with_capacity(None)
            references = [generator.text.read(samples[0]) for samples in greedy.tokens(forget.prompts)]
    for question, reference in zip(forget.texts, references):
        check_reference(config.pmc.reward, question, reference)
    lengths = [float(len(generator.text.answer(r))) for r in references]
    return Memory(list(references), [""] * len(lengths), [None] * len(lengths), lengths)


def plan_rows(
    config: ConfigDict, generator: Sampler, forget: Forget, memory: Memory, retain_rows: list[Row], mesh: Mesh
) -> Packing:
    """The packing of the batches to come, planned on rows with the original answers."""
    likely = [
        training_row(generator.text, q, a, config.train.max_length, group=FORGET)
        for q, a in zip(forget.texts, memory.references)
    ]
    together = min(config.pmc.questions_per_round or len(likely), len(likely))
    return start_packing(config, likely, retain_rows, longest_row(config, forget), mesh, together)
