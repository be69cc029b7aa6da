"""Retain questions without an answer: what the model itself says to them is what must stay."""

import re

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows, is_answered
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.progress import track

SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？।؟]")


def whole_sentences(answer: str, ended: bool) -> str:
    """The answer, or its whole sentences where it was cut off: an update would learn to end within a sentence."""
    if ended:
        return answer
    ends = [match.end() for match in SENTENCE_END.finditer(answer)]
    return answer[: ends[-1]] if ends else ""


def with_own_answers(checkpoint: PretrainedModel, rows: Rows, config: ConfigDict, show: bool = True) -> Rows:
    """The rows, each without an answer with the model's own greedy one.

    Args:
        checkpoint: the untouched model.
        rows: retain rows: "question", and "answer" where it is given.
        config: `prompt.*`, `sample.max_rows`, `model.compute_dtype`, and `sample.max_new_tokens`, the longest answer:
            it bounds what an update learns of a forget question too.
        show: whether progress is shown.

    Returns:
        The rows in the same order, without those to which the model says nothing, or no whole sentence within the
        longest answer.

    Raises:
        UserError: no row is left.
    """
    asked = [row["question"] for row in rows if not is_answered(row)]
    if not asked:
        return rows
    sampler = greedy_sampler(checkpoint, config).with_sampling(max_new_tokens=config.sample.max_new_tokens)
    prompts = [sampler.text.prompt(question) for question in asked]
    with track("own answers to retain questions", len(asked), show=show) as advance:
        tokens = sampler.tokens_after(prompts, asked, advance)
    said = iter([whole_sentences(sampler.text.read(t), bool(set(t) & set(sampler.text.end_tokens))) for (t,) in tokens])
    answered = [row if is_answered(row) else row | {"answer": next(said)} for row in rows]
    kept = [row for row in answered if is_answered(row)]
    if not kept:
        raise UserError("data.retain_answers='own': the model says nothing to any of the retain questions")
    return kept
