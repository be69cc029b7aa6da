"""Random checkpoints of real shapes whose answers have the lengths of TOFU's: what a speed can be measured on where no
checkpoint is at hand.

Weights are drawn on the device. The tokenizer has one word for each token, so that a drawn answer, read as text and
tokenised again, keeps its length. The model answers nothing that means anything, so it would never end, or at once: it
is made to end (`ending`).
"""

import functools
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.plan.abstract import Assumed, read_shape

CONFIGS = Path(__file__).parents[1] / "configs"
SPECIAL = ["<unk>", "<end>", "Question:", "Answer:"]
END = SPECIAL.index("<end>")
TAIL = 4  # tokens between a question and its answer in a chat template
TINY = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=4096)


class Job(NamedTuple):
    """What is measured. config: the published settings. raw: the model's config.json. assumed: questions, and tokens of
    prompts and answers.

    longest: the most tokens of an answer. samples: rows a question in single decode steps. rows: of these steps.
    """

    config: Any
    raw: dict[str, Any]
    assumed: Assumed
    longest: int
    samples: int
    rows: tuple[int, ...]
    retain: int


FAMILIES = {
    "llama": ("tofu_llama.py", "Llama-3.2-3B", Assumed(400, 36, 64, 45), 16),
    "phi": ("tofu_phi.py", "phi-1_5", Assumed(400, 1, 24, 45), 4),
}


def make_job(family: str, small: bool) -> Job:
    """The published settings of "llama" or "phi", on TOFU's sizes; or all of it small enough for a CPU.

    Every sample is drawn to its end and no question counts as solved: random answers would all be solved, or lost, at
    once.
    """
    preset, model, assumed, samples = FAMILIES[family]
    config = runpy.run_path(str(CONFIGS / preset))["get_config"]()
    config.pmc.skip_solved, config.pmc.prune_candidates = False, False
    config.prompt.system = ""  # the templates here have a text of their own in its place
    config.sample.max_rows = 512
    config.sample.max_new_tokens = config.evaluate.max_new_tokens = 130
    config.train.accumulate = 2 if family == "phi" else 1  # the activations of 128 rows of Phi are too many for 80 GB
    raw = read_shape(model)
    if not small:
        return Job(config, raw, assumed, 130, samples, (64, 256, 512, 1024), 3600)
    config.model.dtype = "float32"  # a CPU's programs in bfloat16 take twice as long to compile
    config.sample.max_rows, config.sample.num_samples = 32, 4
    config.sample.max_new_tokens = config.evaluate.max_new_tokens = 40
    config.train.epochs, config.train.batch_size, config.train.max_length = 5, 4, 96
    assumed = assumed._replace(questions=16, answer=15)
    return Job(config, raw | TINY | {"num_key_value_heads": 2, "head_dim": 16}, assumed, 40, 4, (8, 32), 32)


def chat_template(assumed: Assumed) -> str:
    """A template whose prompts share `prefix` tokens, as Llama's do with its system prompt and date."""
    shared, tail = (" ".join(f"w{i}" for i in range(10, 10 + count)) for count in (assumed.prefix, TAIL))
    user = f"{{% if m['role'] == 'user' %}}{shared} {{{{ m['content'] }}}} {tail}"
    return (
        f"{{% for m in messages %}}{user}{{% elif m['role'] == 'assistant' %}} {{{{ m['content'] }}}} "
        f"<end>{{% endif %}}{{% endfor %}}"
    )


def make_tokenizer(vocab_size: int, assumed: Assumed, chat: bool) -> Any:
    """A transformers tokenizer with one word for each token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = SPECIAL + [f"w{i}" for i in range(len(SPECIAL), vocab_size)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = chat_template(assumed) if chat else None
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>", chat_template=template
    )


def make_rows(job: Job, chat: bool, count: int, seed: int) -> list[dict[str, str]]:
    """Questions and answers of random words, of the assumed numbers of tokens."""
    rng, a = np.random.default_rng(seed), job.assumed
    own = a.prompt - a.prefix - (TAIL if chat else 0)
    questions = own + rng.integers(-(a.prompt // 4), a.prompt // 4 + 1, count)
    answers = rng.permutation(a.lengths(job.longest, count)) - 1  # the end token is one of them

    def text(words: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(len(SPECIAL), job.raw["vocab_size"], max(1, words)))

    return [{"question": text(q), "answer": text(n)} for q, n in zip(questions, answers)]


def hazards(job: Job) -> tuple[float, ...]:
    """Chance that an answer ends with its token number t, given that it did not end before."""
    count_L = np.bincount(job.assumed.lengths(job.longest, 10**6), minlength=job.longest + 1)
    left_L = np.cumsum(count_L[::-1])[::-1]
    return tuple((count_L / np.maximum(left_L, 1)).tolist())


@functools.lru_cache
def ending(module: Any) -> Any:
    """The same Linen module, whose answers end at random times: with token number t by chance `hazard[t]`, keyed by t,
    the row and the token before.

    The decode programs stay what they are: only the hidden states of ending rows are replaced, by ones for which the
    end token is all but certain.
    """
    import jax
    import jax.numpy as jnp

    class Ending(module):
        hazard: tuple[float, ...] = ()

        def __call__(self, tokens_BT, positions_BT, mask_BTS, cache=None, slot=None, **training):
            outputs = super().__call__(tokens_BT, positions_BT, mask_BTS, cache, slot, **training)
            if cache is None:
                return outputs
            hidden_BTD, kept = outputs
            key, token_B = jax.random.fold_in(jax.random.key(0), slot), tokens_BT[:, 0]
            keys_B = jax.vmap(lambda token, row: jax.random.fold_in(jax.random.fold_in(key, token), row))(
                token_B, jnp.arange(len(token_B))
            )
            chance_B = jax.vmap(jax.random.uniform)(keys_B)
            # The token read now is number slot + 1, the next one is drawn from these states.
            ends_B = chance_B < jnp.asarray(self.hazard)[slot + 2]
            end_D = (self.embed if self.config.tied_head else self.head)[END].astype(jnp.float32)
            loud_D = (100 * end_D / jnp.sum(end_D**2)).astype(hidden_BTD.dtype)
            return jnp.where(ends_B[:, None, None], loud_D, hidden_BTD), kept

    return Ending


def draw_params(family: Any, model: Any, mesh: Any, dtype: str) -> Any:
    """Random parameters: norms' scales 1, all else normal with deviation 0.02. One small program for each shape, where
    a whole model's initialisation takes minutes to compile.
    """
    import jax
    import jax.numpy as jnp

    from pmc_jax.models import weights

    @functools.partial(jax.jit, static_argnames=("shape", "at"))
    def normal(key, shape, at):
        return jax.lax.with_sharding_constraint((0.02 * jax.random.normal(key, shape)).astype(dtype), at)

    def draw(path, leaf, at):
        if path[-1].key == "scale":
            return jax.device_put(jnp.ones(leaf.shape, dtype), at)
        numbers.append(len(numbers))
        return normal(jax.random.key(numbers[-1]), leaf.shape, at)

    numbers: list[int] = []
    return jax.tree_util.tree_map_with_path(
        draw, weights.abstract_params(model), weights.layout_shardings(family, model, mesh, "train")
    )


def make_checkpoint(job: Job) -> Any:
    """A random checkpoint of the job's shape, on all devices."""
    from pmc_jax.distributed import meshes
    from pmc_jax.models import find_family
    from pmc_jax.models.fused_attention import usable_kind
    from pmc_jax.models.pretrained import PretrainedModel

    raw = job.raw | {"eos_token_id": END}
    family, mesh = find_family(raw), meshes.make_mesh()
    module = ending(family.module)
    model = module(family.read_config(raw), hazard=hazards(job), remat=job.config.train.remat)
    model = model.suited(usable_kind(mesh, model.config))
    chat = raw["model_type"] == "llama"
    tokenizer = make_tokenizer(raw["vocab_size"], job.assumed, chat)
    params = draw_params(family, model, mesh, job.config.model.dtype)
    return PretrainedModel(model, params, model.config, tokenizer, family, raw, {}, (END,), "random")
