"""Fine-tune a checkpoint on question-answer rows, or train one from scratch: the step that comes before unlearning."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.prompts import Text, training_row
from pmc_jax.data.questions import Rows, check_rows
from pmc_jax.data.windows import TEXT
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import read_training
from pmc_jax.methods.supervised import FinetuneSource
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import text_of
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.loop import fit
from pmc_jax.training.objectives import OBJECTIVES
from pmc_jax.training.position import Hooks
from pmc_jax.training.settings import TrainSettings, check_length
from pmc_jax.training.state import with_remat
from pmc_jax.training.watch import UNSEEN, Watch


def finetune(
    checkpoint: PretrainedModel,
    rows: Rows,
    config: ConfigDict,
    *,
    rounds: RoundCheckpointer | None = None,
    clock: Clock | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    keep_start: bool = True,
    on_start: Callable[[int], None] | None = None,
    watch: Watch = UNSEEN,
) -> tuple[PretrainedModel, list[dict[str, Any]]]:
    """Train on the answers of the rows by cross-entropy: answer tokens only, end token included. Of raw text
    (`data.text_window`) every token is learnt, and no end.

    Published recipe: AdamW, linear warm-up and decay. Each epoch is saved as a round, and a stopped run goes on from
    the last one.

    Args:
        checkpoint: from `load` or `models.pretrained.create`.
        rows: dicts with "question" and "answer"; of raw text, dicts with "text".
        config: from `pmc_jax.config.default()`.
        rounds: where each epoch is saved.
        clock: adds up seconds by phase.
        on_epoch: called after each epoch with its line of the history.
        keep_start: False = the checkpoint's parameters are given away: one copy less in memory (`training.loop.fit`).
        on_start: called with the number of the first epoch that is to be run.
        watch: looks on: is told what was done in which time.

    Returns:
        The checkpoint with new parameters, and one dict an epoch: its number, mean loss, and updates.

    Raises:
        UserError: the settings or the data do not fit.
    """
    config = settings.check(config)
    check_length(config.train.max_length, checkpoint.config.ropes)
    t = config.train
    examples = example_rows(text_of(checkpoint, config), rows, config)
    if t.batch_size > len(examples):
        raise UserError(
            f"train.batch_size={t.batch_size}: there are only {len(examples)} rows; choose at most {len(examples)}"
        )
    checkpoint = with_remat(checkpoint, t.remat)
    source = FinetuneSource(examples, t.epochs, t.batch_size, config.seed)
    told = (lambda summary, seen, updates: on_epoch(summary)) if on_epoch else None
    hooks = Hooks(on_start=on_start, on_round=told, watch=watch)
    training = finetune_settings(config)
    return fit(checkpoint, source, training, rounds=rounds, clock=clock, hooks=hooks, keep_start=keep_start)


def example_rows(text: Text, rows: Rows, config: ConfigDict) -> list[Row]:
    """The training rows. Raw text is cut into chunks of `train.max_length` tokens, of which each but the first is a
    label; the last token of a chunk begins the next one.
    """
    longest = config.train.max_length
    if not config.data.text_window:
        check_rows(rows, "fine-tuning data", ("question", "answer"))
        return [training_row(text, r["question"], r["answer"], longest, FORGET) for r in rows]
    check_rows(rows, "fine-tuning data", (TEXT,))
    passages = (text.prompt(row[TEXT]) for row in rows)
    return [Row(ids[i : i + longest], 1, FORGET) for ids in passages for i in range(0, len(ids) - 1, longest - 1)]


def finetune_settings(config: ConfigDict) -> TrainSettings:
    """The settings of training, with cross-entropy in place of the method's objective."""
    return read_training(config)._replace(objective=OBJECTIVES["cross_entropy"], hyper=())
