"""Samplers as a run's settings say, and `pmc_jax.sample`: questions in, answers out."""

import json

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data import given
from pmc_jax.data.prompts import Template, Text, make_text
from pmc_jax.data.windows import make_continuation
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import choose_compute_dtype
from pmc_jax.models.pretrained import PretrainedModel, check_checkpoint
from pmc_jax.sampling.engine import EngineConfig
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.sampler import Sampler, make_sampler
from pmc_jax.tracking.progress import say_once


def text_of(checkpoint: PretrainedModel, config: ConfigDict) -> Text:
    """The checkpoint's tokenizer with the template of the settings `prompt.*`; raw text has none."""
    if config.data.text_window:
        return make_continuation(checkpoint.tokenizer, checkpoint.end_tokens, checkpoint.config.vocab_size)
    template = Template(**json.loads(config.prompt.to_json()))
    text = make_text(checkpoint.tokenizer, template, checkpoint.end_tokens, checkpoint.config.vocab_size)
    if text.note:
        say_once(text.note)
    return text


def round_sampling(config: ConfigDict) -> SamplingParams:
    """What each round samples: the settings `sample.*` and `seed`."""
    s = config.sample
    return SamplingParams(
        num_samples=s.num_samples,
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        max_new_tokens=s.max_new_tokens,
        seed=config.seed,
    )


def greedy_sampling(config: ConfigDict) -> SamplingParams:
    """What evaluation samples: one greedy answer."""
    return SamplingParams(temperature=0.0, max_new_tokens=longest_greedy(config), seed=config.seed)


def longest_greedy(config: ConfigDict) -> int:
    """Tokens of the longest greedy answer: `evaluate.max_new_tokens`; of raw text, whose continuations are of one
    length, `sample.max_new_tokens`.
    """
    return config.sample.max_new_tokens if config.data.text_window else config.evaluate.max_new_tokens


def configured_sampler(
    checkpoint: PretrainedModel, config: ConfigDict, sampling: SamplingParams, capacity: int | None = None
) -> Sampler:
    """A sampler with the template, the batch size and the compute dtype of a run's settings.

    A continuation of raw text is of a fixed length: end tokens, and all special ones, are never drawn. An end in the
    midst of a text would be the shortest way to say nothing of it, and a row without labels.

    Args:
        checkpoint: from `pmc_jax.load`.
        config: `prompt.*`, `sample.max_rows` and `model.compute_dtype` are read.
        sampling: what to sample for each question.
        capacity: see `EngineConfig`.
    """
    engine = EngineConfig(config.sample.max_rows, capacity)
    dtype = choose_compute_dtype(config.model.compute_dtype, meshes.mesh_of(checkpoint.params))
    text = text_of(checkpoint, config)
    if text.continues:
        banned = {*text.end_tokens, *text.tokenizer.all_special_ids}
        sampling = sampling.replace(banned=tuple(sorted(banned)))
    return make_sampler(checkpoint, text, sampling, engine, dtype)


def round_sampler(checkpoint: PretrainedModel, config: ConfigDict, capacity: int | None = None) -> Sampler:
    """The sampler of the rounds. capacity: see `EngineConfig`."""
    return configured_sampler(checkpoint, config, round_sampling(config), capacity)


def greedy_sampler(checkpoint: PretrainedModel, config: ConfigDict) -> Sampler:
    """The sampler of evaluation: one greedy answer to each question."""
    return configured_sampler(checkpoint, config, greedy_sampling(config))


def sample(
    checkpoint: PretrainedModel,
    questions: list[str],
    num_samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 50,
    max_new_tokens: int = 200,
    seed: int = 0,
    config: ConfigDict | None = None,
) -> list[list[str]]:
    """Sample answers to questions.

    Args:
        checkpoint: from `pmc_jax.load`.
        questions: Q texts.
        num_samples: answers to each question.
        temperature: 0 = greedy. Temperature comes first, then top_k, then top_p.
        top_p: keep the smallest head of the distribution that holds this probability, 1 = all.
        top_k: keep the k likeliest tokens, 0 = all.
        max_new_tokens: longest answer, tokens.
        seed: draws are keyed by (seed, question, sample, position): a question gets the same answers alone or among
            others.
        config: template, batch size and compute dtype; `pmc_jax.config.default()` when None.

    Returns:
        [question][sample] -> text.

    Raises:
        UserError: a value is out of bounds, or the questions are no list of texts.
    """
    questions = given.texts(questions, "questions")
    sampling = SamplingParams(
        num_samples=num_samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    config = settings.check(config if config is not None else settings.default())
    check_checkpoint(checkpoint)
    return configured_sampler(checkpoint, config, sampling).answers(questions)
