"""Every family beside Llama and Phi against transformers, on drawn configurations.

Texts are longer than the windows and than the length that RoPE was made for.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import pmc_jax
from pmc_jax import config
from pmc_jax.models import find_family, tensor_files
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad

pytest.importorskip("torch")

import golden
import golden_torch
import reference
import safetensors
import torch
import transformers
from drawn_families import DRAW, LENGTH
from reference import load_ours, load_torch

pytestmark = pytest.mark.parity

SEEDS = range(12)
RELATIVE = 1e-4


class Drawn(NamedTuple):
    """One draw: transformers' model of it and ours."""

    seed: int
    theirs: Any
    ours: pmc_jax.PretrainedModel


@pytest.fixture(scope="module", params=[(f, s) for f in DRAW for s in SEEDS], ids=lambda p: f"{p[0]}-{p[1]}")
def drawn(request, tmp_path_factory) -> Iterator[Drawn]:
    """Each draw is loaded once: pytest runs the tests that share one after the other.

    Its programs go with it: those of all draws in one process run into Linux's limit of memory maps.
    """
    family, seed = request.param
    folder = reference.save_styled(tmp_path_factory.mktemp("drawn"), DRAW[family](seed), seed)
    yield Drawn(seed, load_torch(folder), load_ours(folder))
    jax.clear_caches()


def close(values, wanted) -> None:
    """Equal to 1e-4 of the largest value."""
    np.testing.assert_allclose(values, wanted, rtol=0, atol=RELATIVE * np.abs(wanted).max())


def test_logits_before_and_after_an_export(tmp_path, drawn):
    seed, theirs, ours = drawn
    tokens, mask = reference.draw_inputs(theirs.config.vocab_size, seed)
    assert max(kind.window or 0 for kind in ours.config.layers) < LENGTH < tokens.shape[1]
    wanted = golden_torch.torch_logits(theirs, tokens, mask)
    assert 0.5 < wanted[mask].std() < 8
    logits = np.asarray(pmc_jax.logits(ours, tokens, mask))
    close(logits[mask], wanted[mask])
    out = pmc_jax.export(ours, tmp_path / "out")
    np.testing.assert_array_equal(golden_torch.torch_logits(load_torch(out), tokens, mask), wanted)
    np.testing.assert_array_equal(np.asarray(pmc_jax.logits(load_ours(out), tokens, mask)), logits)


def test_gradients_are_those_of_autograd(drawn):
    theirs, ours = drawn.theirs, drawn.ours
    # Rows that are packed together must not reach the lengths where RoPE depends on a row's length.
    longest = min([rope.max_fixed_length or 99 for rope in ours.config.ropes])
    rows = [(tokens[:longest], start, group) for tokens, start, group in golden.gradient_rows()]
    batch = golden.package_batch(rows, length=16, packed_rows=2, labels=32, several=True)
    metrics, gradients = golden.package_gradients(ours, batch, golden.HYPER)
    theirs.zero_grad()
    loss = golden_torch.torch_loss(theirs, rows, golden.RETAIN_WEIGHT)
    loss.backward()
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    parameters = dict(theirs.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, gradient in gradients.items():
        close(gradient, parameters[name].grad.numpy())


def test_greedy_answers_are_those_of_generate(drawn):
    seed, theirs, ours = drawn
    rng = np.random.default_rng(seed)
    # transformers keeps dynamic RoPE's base of a longer text, until a short one resets it: 2 tokens, then the longest.
    theirs(torch.tensor([[2, 3]]))
    prompts = [rng.integers(2, golden.VOCAB, n).tolist() for n in (30, 14, 19)]
    ends = theirs.config.eos_token_id
    assert ours.end_tokens == tuple(ends if isinstance(ends, list) else [ends])
    sampler = greedy_sampler(ours, config.default()).with_sampling(max_new_tokens=golden.ANSWER_TOKENS)
    answers = [samples[0] for samples in sampler.tokens(left_pad(prompts, [str(p) for p in prompts]))]
    wanted, gaps = zip(*(golden_torch.torch_greedy(theirs, prompt) for prompt in prompts))
    decided = [i for i, gap in enumerate(gaps) if gap > 1e-3]
    assert decided
    assert [answers[i] for i in decided] == [wanted[i] for i in decided]


def test_the_drawn_configs_meet_every_switch():
    """The draws are worth what they vary."""
    shapes = {f: [find_family(_raw(c)).read_config(_raw(c)) for c in map(d, SEEDS)] for f, d in DRAW.items()}
    for draw in DRAW.values():  # `plan` compiles a model with fewer layers
        raw = _raw(draw(0)) | {"num_hidden_layers": 1}
        assert find_family(raw).read_config(raw).num_layers == 1
    for family, configs in shapes.items():
        assert {c.tied_head for c in configs} == {True, False}, family
        assert {c.num_kv_heads < c.num_heads for c in configs} == {True, False}, family
    windows = {f: {tuple(k.window is None for k in c.layers) for c in configs} for f, configs in shapes.items()}
    assert all(len(windows[f]) > 1 for f in ("qwen2", "qwen3", "mistral", "olmo3", "phi3", "gemma2", "gemma3")), windows
    kinds = {f: {rope.type for c in configs for rope in c.ropes} for f, configs in shapes.items()}
    usual = {"default", "linear", "dynamic", "llama3", "yarn"}
    assert all(kinds[f] == usual for f in ("qwen2", "qwen3", "mistral", "olmo2", "gemma2"))
    assert kinds["phi3"] == {"default", "longrope"} and kinds["llama-scaled"] == {"yarn", "longrope"}
    assert kinds["gemma3"] == {"default", "linear"} and "yarn" in kinds["olmo3"]
    for family in ("qwen3", "olmo2", "olmo3", "gemma2", "gemma3", "llama-scaled"):
        assert {c.output_bias for c in shapes[family]} == {True, False}, family
    assert {c.mlp_bias for c in shapes["llama-scaled"]} == {True, False}
    assert {str(DRAW["llama-scaled"](seed).pretraining_tp) for seed in SEEDS} == {"1", "2"}
    # Each family meets each storage dtype with each style of config.json, one file and several.
    written = [reference.style(seed) for seed in SEEDS]
    assert {(how["storage"], bool(how["v4"])) for how in written} == {(s, v) for s in reference.STORAGE for v in (0, 1)}
    assert {how["sharded"] for how in written} == {True, False}
    assert {c.logit_softcap for c in shapes["gemma2"]} == {None, 5.0, 30.0}
    assert {c.layers[0].softcap for c in shapes["gemma2"]} == {None, 2.0, 50.0}


def _raw(drawn) -> dict:
    return drawn.to_dict() | {"architectures": [_architecture(drawn)]}


def _architecture(drawn) -> str:
    names = {"gemma3_text": "Gemma3"}
    return names.get(drawn.model_type, type(drawn).__name__.removesuffix("Config")) + "ForCausalLM"


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_the_text_of_a_multimodal_gemma(tmp_path, storage):
    """Its logits are those of transformers, before and after an export; the vision tower comes out as it went in."""
    vision = transformers.SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    drawn = transformers.Gemma3Config(text_config=DRAW["gemma3"](0), vision_config=vision, mm_tokens_per_image=4)
    drawn.eos_token_id = golden.END
    model = transformers.Gemma3ForConditionalGeneration(drawn).to(getattr(torch, storage))
    model.save_pretrained(tmp_path / "in", max_shard_size="8KB")
    golden.save_tokenizer(tmp_path / "in", drawn.text_config.vocab_size)
    ours = load_ours(tmp_path / "in")
    out = pmc_jax.export(ours, tmp_path / "out")
    tokens, mask = reference.draw_inputs(drawn.text_config.vocab_size, 0)
    logits = np.asarray(pmc_jax.logits(ours, tokens, mask))[mask]
    for folder in (tmp_path / "in", out):
        theirs = transformers.Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        theirs.config.vocab_size = drawn.text_config.vocab_size
        close(logits, golden_torch.torch_logits(theirs, tokens, mask)[mask])
    before, after = (tensor_files.find_tensors(folder) for folder in (tmp_path / "in", out))
    assert before.keys() == after.keys()
    carried = [name for name in before if name.startswith(ours.family.carried)]
    assert len(carried) > 10 and all(before[name].dtype == after[name].dtype for name in carried)
    for name in carried:
        one, other = (safetensors.safe_open(x[name].file, "numpy").get_tensor(name) for x in (before, after))
        assert one.tobytes() == other.tobytes(), name
    again = load_ours(out)
    np.testing.assert_array_equal(np.asarray(pmc_jax.logits(again, tokens, mask))[mask], logits)
