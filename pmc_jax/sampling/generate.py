"""Questions in, answers out: the sampler bound to a checkpoint, a template and settings."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.prompts import Template, Text, make_text
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models import weights
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.draw import GREEDY, SamplingParams
from pmc_jax.sampling.engine import PROMPT_MULTIPLE, Prompts, Pruner, left_pad, sample_tokens


class Generator(NamedTuple):
    """A sampler of one model. params: laid out for decoding (see `at`)."""

    checkpoint: PretrainedModel
    text: Text
    params: Any
    sampling: SamplingParams
    num_samples: int
    max_new_tokens: int
    max_rows: int
    seed: int
    compute_dtype: str
    capacity: int | None = None

    def at(self, params: Any) -> "Generator":
        """The same sampler for new parameters: cast to the compute dtype and re-laid out for decoding, once."""
        return self._replace(params=decode_params(self.checkpoint, params, self.compute_dtype))

    def tokens(
        self, prompts: Prompts, round_index: int = 0, prune: Pruner | None = None, on_progress: Any = None
    ) -> list[list[list[int]]]:
        """[question][sample] -> token ids, the end token included."""
        return sample_tokens(
            self.checkpoint.model,
            self.params,
            prompts,
            sampling=self.sampling,
            num_samples=self.num_samples,
            max_new_tokens=self.max_new_tokens,
            end_tokens=self.text.end_tokens,
            seed=self.seed,
            round_index=round_index,
            max_rows=self.max_rows,
            capacity=self.capacity,
            prune=prune,
            on_progress=on_progress,
        )

    def tokens_after(
        self, prompts: list[list[int]], texts: list[str], on_progress: Any = None, multiple: int = PROMPT_MULTIPLE
    ) -> list[list[list[int]]]:
        """[prompt][sample] -> token ids. Shortest prompts are worked off first: batches hold little padding then.

        texts: what draws are keyed by. multiple: prompts are padded to one of it.
        """
        if not prompts:
            return []
        order = np.argsort([len(p) for p in prompts], kind="stable")
        tokens = self.tokens(
            left_pad([prompts[i] for i in order], [texts[i] for i in order], multiple), on_progress=on_progress
        )
        found: list[list[list[int]]] = [[]] * len(prompts)
        for i, samples in zip(order, tokens):
            found[i] = samples
        return found

    def answers(self, questions: list[str], on_progress: Any = None) -> list[list[str]]:
        """[question][sample] -> text."""
        tokens = self.tokens_after([self.text.prompt(q) for q in questions], questions, on_progress)
        return [[self.text.read(t) for t in samples] for samples in tokens]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _relayout(params, dtype, shardings):
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    return jax.lax.with_sharding_constraint(params, jax.tree.unflatten(jax.tree.structure(params), shardings))


def decode_params(checkpoint: PretrainedModel, params: Any, dtype: str) -> Any:
    """Parameters cast to `dtype` and replicated over `data`; the very same arrays when nothing is to be done."""
    mesh = meshes.mesh_of(params)
    if mesh.shape["data"] == 1 and all(str(x.dtype) == dtype for x in jax.tree.leaves(params)):
        return params
    shardings = weights.layout_shardings(checkpoint.family, checkpoint.model, mesh, "decode")
    return _relayout(params, dtype, tuple(jax.tree.leaves(shardings)))


def text_of(checkpoint: PretrainedModel, config: ConfigDict) -> Text:
    """The checkpoint's tokenizer with the settings' template."""
    p = config.prompt
    template = Template(p.style, p.system, p.date, p.question_tag, p.answer_tag, p.tag_in)
    return make_text(checkpoint.tokenizer, template, checkpoint.end_tokens)


def make_generator(
    checkpoint: PretrainedModel,
    config: ConfigDict,
    sampling: SamplingParams,
    num_samples: int,
    capacity: int | None = None,
) -> Generator:
    """A Generator at the checkpoint's own parameters; its answers are as long as evaluation's."""
    text = text_of(checkpoint, config)
    dtype = config.model.compute_dtype or str(jax.tree.leaves(checkpoint.params)[0].dtype)
    params = decode_params(checkpoint, checkpoint.params, dtype)
    longest, most = config.evaluate.max_new_tokens, config.sample.max_rows
    return Generator(checkpoint, text, params, sampling, num_samples, longest, most, config.seed, dtype, capacity)


def round_generator(checkpoint: PretrainedModel, config: ConfigDict, capacity: int | None = None) -> Generator:
    """A Generator of the rounds' samples, all as `sample.*` says."""
    s = config.sample
    generator = make_generator(
        checkpoint, config, SamplingParams(s.temperature, s.top_k, s.top_p), s.num_samples, capacity
    )
    return generator._replace(max_new_tokens=s.max_new_tokens)


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
    """Sample answers: a list of `num_samples` texts per question.

    temperature: 0 = greedy. top_k: 0 = all. The order is temperature, top_k, top_p. max_new_tokens: longest answer,
    tokens.
    seed: draws are keyed by (seed, question, sample, position), so that a question gets the same answers alone or among
    others.
    config: template and mesh settings; `pmc_jax.config.default()` when None. Raises UserError for values out of bounds.
    """
    if num_samples < 1 or max_new_tokens < 1:
        raise UserError(f"num_samples={num_samples}, max_new_tokens={max_new_tokens}: both must be 1 or more")
    config = config if config is not None else settings.default()
    sampling = SamplingParams(temperature, top_k, top_p) if temperature else GREEDY
    generator = make_generator(checkpoint, config, sampling, num_samples)
    return generator._replace(max_new_tokens=max_new_tokens, seed=seed).answers(list(questions))
