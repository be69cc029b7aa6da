"""Retain questions without an answer: what the model itself says to them is what must stay."""

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows, is_answered
from pmc_jax.errors import UserError
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.progress import track


def with_own_answers(checkpoint: PretrainedModel, rows: Rows, config: ConfigDict, show: bool = True) -> Rows:
    """The rows, each without an answer with the model's own greedy one.

    Args:
        checkpoint: the untouched model.
        rows: retain rows: "question", and "answer" where it is given.
        config: `prompt.*`, `sample.max_rows`, `model.compute_dtype`, and `sample.max_new_tokens`, the longest answer:
            it bounds what an update learns of a forget question too.
        show: whether progress is shown.

    Returns:
        The rows in the same order, without those to which the model says nothing.

    Raises:
        UserError: no row is left.
    """
    asked = [row["question"] for row in rows if not is_answered(row)]
    if not asked:
        return rows
    sampler = greedy_sampler(checkpoint, config).with_sampling(max_new_tokens=config.sample.max_new_tokens)
    with track("own answers to retain questions", len(asked), show=show) as advance:
        said = iter(sampler.answers(asked, advance))
    answered = [row if is_answered(row) else row | {"answer": next(said)[0]} for row in rows]
    kept = [row for row in answered if is_answered(row)]
    if not kept:
        raise UserError("data.retain_answers='own': the model says nothing to any of the retain questions")
    return kept
