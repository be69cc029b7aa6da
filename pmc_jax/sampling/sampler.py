"""The sampler of one model: the engine bound to a checkpoint, a template and sampling parameters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from pmc_jax.data.prompts import Text
from pmc_jax.distributed import meshes
from pmc_jax.models import weights
from pmc_jax.models.layer_stack import stack_layers, stack_sharding
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.batches import Pruner
from pmc_jax.sampling.engine import EngineConfig, sample_batches
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.prompts import PROMPT_MULTIPLE, Prompts, left_pad


class Sampler(NamedTuple):
    """A sampler of one model. It is a value: `with_...` returns another one.

    Attributes:
        checkpoint: the model whose answers are sampled.
        text: its tokenizer and template.
        params: its parameters, laid out for decoding.
        sampling: what is sampled for each question.
        engine: how much is decoded at once.
        compute_dtype: of `params`.
    """

    checkpoint: PretrainedModel
    text: Text
    params: Any
    sampling: SamplingParams
    engine: EngineConfig
    compute_dtype: str

    def with_params(self, params: Any) -> "Sampler":
        """The same sampler for new parameters: they are cast to the compute dtype and laid out for decoding, once."""
        return self._replace(params=decode_params(self.checkpoint, params, self.compute_dtype))

    def with_sampling(self, **changes: Any) -> "Sampler":
        """The same sampler with other fields of `SamplingParams`."""
        return self._replace(sampling=self.sampling.replace(**changes))

    def with_capacity(self, capacity: int | None) -> "Sampler":
        """The same sampler for at most so many questions a call (`EngineConfig`)."""
        return self._replace(engine=self.engine._replace(capacity=capacity))

    def tokens(
        self,
        prompts: Prompts,
        round_index: int = 0,
        prune: Pruner | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[list[list[int]]]:
        """Sample token ids.

        Args:
            prompts: of all questions.
            round_index: part of the draws' key.
            prune: which rows need not go on (`engine.sample_batches`).
            on_progress: called with the number of questions that are finished.

        Returns:
            [question][sample] -> token ids, the end token included where one was drawn.
        """
        batches = sample_batches(
            self.checkpoint.model,
            self.params,
            prompts,
            sampling=self.sampling,
            end_tokens=self.text.end_tokens,
            engine=self.engine,
            round_index=round_index,
            prune=prune,
        )
        answers: list[list[list[int]]] = []
        for batch_answers in batches:
            answers += batch_answers
            if on_progress:
                on_progress(len(answers))
        return answers

    def tokens_after(
        self,
        prompts: list[list[int]],
        texts: list[str],
        on_progress: Callable[[int], None] | None = None,
        multiple: int = PROMPT_MULTIPLE,
    ) -> list[list[list[int]]]:
        """Sample token ids after prompts of any length. The shortest come first, so that batches hold little padding.

        Args:
            prompts: token ids of each prompt.
            texts: the question of each prompt, by which its draws are keyed.
            on_progress: called with the number of prompts that are finished.
            multiple: prompts are padded to a multiple of this.

        Returns:
            [prompt][sample] -> token ids, in the order of the prompts.
        """
        if not prompts:
            return []
        order = np.argsort([len(p) for p in prompts], kind="stable")
        padded = left_pad([prompts[i] for i in order], [texts[i] for i in order], multiple)
        answers: list[list[list[int]]] = [[]] * len(prompts)
        for i, samples in zip(order, self.tokens(padded, on_progress=on_progress)):
            answers[i] = samples
        return answers

    def answers(self, questions: list[str], on_progress: Callable[[int], None] | None = None) -> list[list[str]]:
        """Sample texts: [question][sample]."""
        tokens = self.tokens_after([self.text.prompt(q) for q in questions], questions, on_progress)
        return [[self.text.read(t) for t in samples] for samples in tokens]


def make_sampler(
    checkpoint: PretrainedModel,
    text: Text,
    sampling: SamplingParams,
    engine: EngineConfig,
    compute_dtype: str = "",
) -> Sampler:
    """A sampler at the checkpoint's own parameters.

    Args:
        checkpoint: from `pmc_jax.load`.
        text: the checkpoint's tokenizer with a template.
        sampling: what to sample for each question.
        engine: how much at once.
        compute_dtype: what the parameters are cast to; empty = they stay as they are.
    """
    dtype = compute_dtype or str(jax.tree.leaves(checkpoint.params)[0].dtype)
    params = decode_params(checkpoint, checkpoint.params, dtype)
    return Sampler(checkpoint, text, params, sampling, engine, dtype)


def decode_params(checkpoint: PretrainedModel, params: Any, dtype: str) -> Any:
    """Parameters cast to `dtype`, replicated over `data`, and stacked where layers are scanned; the very same arrays
    when nothing is to be done.
    """
    mesh, model = meshes.mesh_of(params), checkpoint.model
    if mesh.shape["data"] == 1 and not model.scan and all(str(x.dtype) == dtype for x in jax.tree.leaves(params)):
        return params
    shardings = weights.layout_shardings(checkpoint.family, model, mesh, "decode")
    if model.scan:
        shardings = stack_layers(model.config.layers, shardings, stack_sharding)
    return _relayout(model, params, dtype, tuple(jax.tree.leaves(shardings)))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _relayout(model, params, dtype, shardings):
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    if model.scan:
        params = stack_layers(model.config.layers, params)
    return jax.lax.with_sharding_constraint(params, jax.tree.unflatten(jax.tree.structure(params), shardings))
