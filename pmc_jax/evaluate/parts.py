"""The parts of an evaluation, what each measures of one model: functions of a Setup whose results are JSON, kept as
soon as they are there.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.evaluate import attacks, logs, tofu
from pmc_jax.evaluate.answers import evaluate
from pmc_jax.evaluate.drift import Word, word_probabilities
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.likelihood import TokenScores
from pmc_jax.evaluate.quality import KEEP
from pmc_jax.evaluate.relearn import relearning
from pmc_jax.methods.rewards import score
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track
from pmc_jax.tracking.workdir import Workdir, read_json, read_lines, write_json, write_lines

NO_ANSWERS = {"reason": "the forget rows have no answers"}
NO_RETAIN_MODEL = {"reason": "no retain model was given (evaluate.retain_model)"}
NO_ORIGINAL = {"reason": "no model from before unlearning was given (evaluate.original_model)"}
OFF = {"reason": "switched off in the settings"}


class Setup(NamedTuple):
    """sets: those of unlearn quality and utility. tofu: TOFU's splits that the data has. load: path -> greedy generator
    of that checkpoint.
    """

    work: Workdir
    config: ConfigDict
    sets: dict[str, Rows]
    tofu: dict[str, Rows]
    load: Callable[[str], Sampler]

    def model(self) -> Sampler:
        return self.load(self.config.model.path)

    def answers(self) -> list[dict[str, Any]]:
        """The rows of the part `answers`."""
        return multihost.broadcast_from_primary(lambda: read_lines(self.work.path / "answers" / "model.jsonl"))

    def no_tofu(self) -> dict[str, str] | None:
        """Why TOFU's metrics cannot be computed; None where they can."""
        if "forget" in self.tofu:
            return None
        data = self.config.data
        which = "the forget file is your own, and" if data.forget_file else "the data has no such split:"
        return {
            "reason": (
                f"{which} TOFU's metrics need {data.forget}_perturbed, the forget rows with paraphrased and "
                "wrong answers"
            )
        }


def needs_answers(part: Callable[..., Any]) -> Callable[..., Any]:
    """The part, not computed where the forget rows have no answers to look for."""

    @functools.wraps(part)
    def checked(setup: Setup, **how: str) -> Any:
        return part(setup, **how) if all(row.get("answer") for row in setup.sets["forget"]) else NO_ANSWERS

    return checked


def needs_tofu(part: Callable[[Setup], Any]) -> Callable[[Setup], Any]:
    """The part, not computed where the data lacks TOFU's forget split."""

    @functools.wraps(part)
    def checked(setup: Setup) -> Any:
        return setup.no_tofu() or part(setup)

    return checked


def answers(setup: Setup) -> dict[str, Any]:
    """Unlearn quality, utility and the recalls they are made of; the answers are written to answers/model.jsonl."""
    found = evaluate(setup.model(), setup.sets)
    write_lines(setup.work.file("answers/model.jsonl"), found.answers)
    return found.summary()


def likelihoods(setup: Setup) -> dict[str, Any]:
    """Rows of the TOFU log that follow from likelihoods and each forget row's extraction strength without a floor,
    where the data has TOFU's splits; the words of unrelated text with their probabilities, where there is an original
    model to compare with. One scoring pass for all.
    """
    generator, rows = setup.model(), unrelated(setup) if setup.config.evaluate.original_model else []
    scores = tofu.score_sets(generator, setup.tofu | ({"unrelated": rows} if rows else {}))
    found: dict[str, Any] = {"words": words_in(generator, rows, scores.get("unrelated_Q_A_Prob", []))}
    if setup.no_tofu():
        return found
    return found | {
        "rows": tofu.likelihood_rows(setup.tofu, scores),
        "strict_extraction": tofu.strict_extraction(scores),
    }


@needs_tofu
def gradients(setup: Setup) -> dict[str, Any]:
    """Rows of the TOFU log of the gradient-norm attack."""
    return {"rows": tofu.gradient_rows(setup.model(), setup.tofu) if "holdout" in setup.tofu else {}}


@needs_tofu
def tofu_answers(setup: Setup) -> dict[str, Any]:
    """Rows of the TOFU log that follow from greedy answers; those that are there already are not generated again."""
    known = {row["question"]: row["answer"] for row in setup.answers()}
    return {"rows": tofu.answer_rows(setup.model(), setup.tofu, known)}


@needs_answers
def leakage(setup: Setup, name: str, prefill: str) -> dict[str, Any]:
    """Leakage in many samples of each forget answer, after the words of `prefill`."""
    if not setup.config.evaluate.leak_samples:
        return OFF
    with track(f"leakage, {name}", len(setup.sets["forget"])) as advance:
        return attacks.sampled_leakage(
            setup.model(), setup.sets["forget"], setup.config.evaluate.leak_samples, prefill, advance
        )


@needs_answers
def relearn(setup: Setup) -> Any:
    """The relearning curve of the model."""
    first = [row["answer"] for row in setup.answers() if row["set"] == "forget"]
    return relearned(setup, setup.model(), first, "model") if setup.config.evaluate.relearn_rows else OFF


def relearned(setup: Setup, generator: Sampler, first: list[str], whose: str) -> dict[str, Any]:
    """A relearning curve, with a progress line."""
    with track(f"relearning, {whose}, updates", setup.config.evaluate.relearn_updates) as advance:
        return {"looks": relearning(generator, setup.config, setup.sets["forget"], first, advance)}


def unrelated(setup: Setup) -> Rows:
    """Questions and answers that have nothing to do with the secret."""
    return [{"question": row["question"], "answer": row["answer"]} for name in KEEP for row in setup.sets.get(name, [])]


def words_in(generator: Sampler, rows: Rows, scores: list[list[TokenScores]]) -> list[list[Word]]:
    """Every word of the rows' answers with its probability."""
    text, found = generator.text, []
    for row, (of_row,) in zip(rows, scores):
        whole, answer = text.answer_text(row["answer"]), row["answer"].strip()
        before = whole.rindex(answer)  # the template's tag is no part of the text
        spans = text.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        found.append(
            word_probabilities(answer, [(start - before, end - before) for start, end in spans], of_row.log_probs[:-1])
        )
    return found


def retain_model(setup: Setup) -> dict[str, Any]:
    """What the retain model, which never saw the forget set, says of the forget and holdout rows, and its answers to
    the forget questions.
    """
    if not setup.config.evaluate.retain_model:
        return NO_RETAIN_MODEL
    generator, questions = (
        setup.load(setup.config.evaluate.retain_model),
        [row["question"] for row in setup.sets["forget"]],
    )
    said = [samples[0] for samples in generator.answers(questions)]
    sides = {side: setup.tofu[side] for side in logs.SIDES if side in setup.tofu}
    if "forget" not in sides:
        return {"answers": said, "rows": None}
    scores = tofu.score_sets(generator, sides, "retain model, likelihoods")
    rows = tofu.likelihood_rows(sides, scores) | tofu.answer_rows(generator, sides, dict(zip(questions, said)))
    return {"answers": said, "rows": rows}


@needs_answers
def retain_relearn(setup: Setup) -> dict[str, Any]:
    """The relearning curve of the retain model."""
    if not setup.config.evaluate.retain_model:
        return NO_RETAIN_MODEL
    if not setup.config.evaluate.relearn_rows:
        return OFF
    first = done(setup.work, "retain_model")["found"]["answers"]
    return relearned(setup, setup.load(setup.config.evaluate.retain_model), first, "retain model")


def original_model(setup: Setup) -> dict[str, Any]:
    """What the model from before unlearning answers to the retain questions, and the words of unrelated text with its
    probabilities.
    """
    if not setup.config.evaluate.original_model:
        return NO_ORIGINAL
    generator, retain = setup.load(setup.config.evaluate.original_model), setup.sets["retain"]
    questions, truths = ([row[key] for row in retain] for key in ("question", "answer"))
    recall_N = score(truths, [[a] for a in greedy_answers(generator, questions, truths, "original model, answers")])[
        :, 0
    ]
    rows = unrelated(setup)
    scores = tofu.score_sets(generator, {"unrelated": rows}, "original model, likelihoods")["unrelated_Q_A_Prob"]
    return {"retain_recall": recall_N.tolist(), "words": words_in(generator, rows, scores)}


# The parts of one model stand together: one model is in memory at a time.
PARTS: tuple[tuple[str, Callable[[Setup], Any]], ...] = (
    ("answers", answers),
    ("likelihoods", likelihoods),
    ("gradients", gradients),
    ("tofu_answers", tofu_answers),
    ("leakage_sampled", functools.partial(leakage, name="sampled", prefill="")),
    ("leakage_prefilled", functools.partial(leakage, name="prefilled", prefill=attacks.PREFILL)),
    ("relearning", relearn),
    ("retain_model", retain_model),
    ("retain_relearning", retain_relearn),
    ("original_model", original_model),
)


def done(work: Workdir, name: str) -> dict[str, Any] | None:
    """{"found", "seconds"} of a part that is finished."""
    return multihost.broadcast_from_primary(lambda: read_json(work.path / "parts" / f"{name}.json"))


def measure(setup: Setup) -> dict[str, dict[str, Any]]:
    """{part: {"found", "seconds"}} of all parts; those that an earlier start finished are read and not measured
    again.
    """
    for name, part in PARTS:
        if done(setup.work, name) is None:
            start = time.perf_counter()
            found = part(setup)
            write_json(setup.work.file(f"parts/{name}.json"), {"found": found, "seconds": time.perf_counter() - start})
    return {name: done(setup.work, name) for name, _ in PARTS}
