"""Drawn models of each architecture as GGUF files: the logits of the torch model that a file was made from.

transformers' own reading of the same files says whether they follow llama.cpp's conventions. It reads neither RoPE
scaling nor soft-caps nor head widths; where the drawn config has those, the file's source alone is compared with.
"""

import golden
import numpy as np
import pytest

import pmc_jax

pytest.importorskip("torch")
pytest.importorskip("gguf")

import golden_torch
import reference
from drawn_families import draw_longrope, draw_rope, draw_yarn
from gguf_converter import convert
from reference import load_ours, torch, transformers

pytestmark = pytest.mark.parity

LENGTH, SEEDS = 24, range(3)
ROPES = ("default", "linear", "yarn")


def sizes(seed: int, layers: int = 2) -> dict:
    """Tied or not, grouped heads or not."""
    kv_heads = [2, 4, 1][seed % 3]
    return dict(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=seed % 2 == 0,
        bos_token_id=None,
        pad_token_id=None,
    )


def some_rope(seed: int) -> dict:
    rng = np.random.default_rng([21, seed])
    kind = ROPES[seed % 3]
    return draw_yarn(rng, 0) | {"attention_factor": 1.2} if kind == "yarn" else draw_rope(rng, kind, None)


def draw_mistral(seed):
    return transformers.MistralConfig(**sizes(seed), head_dim=12, sliding_window=None, rope_parameters=some_rope(seed))


def draw_qwen2(seed):
    return transformers.Qwen2Config(**sizes(seed), rope_parameters=some_rope(seed))


def draw_qwen3(seed):
    head_dim = 128 if seed == 0 else 12  # 128 is what transformers assumes
    return transformers.Qwen3Config(**sizes(seed), head_dim=head_dim, rope_parameters=some_rope(seed))


def draw_phi3(seed):
    rng, partial = np.random.default_rng([22, seed]), [1.0, 0.75, 1.0][seed]
    rope = {"rope_type": "default", "rope_theta": 1e4}
    if seed:
        rope = draw_longrope(rng, int(8 * partial) // 2, 0)
    return transformers.Phi3Config(
        **sizes(seed),
        original_max_position_embeddings=LENGTH if seed == 0 else 12,
        sliding_window=[None, 7, None][seed],
        rope_parameters=rope | {"partial_rotary_factor": partial},
    )


def draw_gemma2(seed):
    head_dim = 256 if seed == 0 else 12
    return transformers.Gemma2Config(
        **sizes(seed) | {"tie_word_embeddings": True},
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        sliding_window=5 + seed,
        attn_logit_softcapping=50.0 if seed == 0 else 3.0,
        final_logit_softcapping=30.0 if seed == 0 else 5.0,
        rope_parameters=some_rope(0),
    )


def draw_gemma3(seed):
    head_dim = 256 if seed == 0 else 12
    return transformers.Gemma3TextConfig(
        **sizes(seed, layers=7) | {"tie_word_embeddings": True},
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        sliding_window=5 + seed,
        final_logit_softcapping=5.0 if seed == 2 else None,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6}
            | ({"rope_type": "linear", "factor": 8.0} if seed else {}),
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )


DRAW = {
    "mistral": draw_mistral,
    "qwen2": draw_qwen2,
    "qwen3": draw_qwen3,
    "phi3": draw_phi3,
    "gemma2": draw_gemma2,
    "gemma3": draw_gemma3,
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DRAW)
def test_a_file_and_its_export_give_the_logits_of_their_source(name, seed, tokenizer, tmp_path):
    config = DRAW[name](seed)
    config.eos_token_id = tokenizer.eos_token_id
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    tensors = golden.draw_tensors(shapes, seed)
    model.load_state_dict({n: torch.tensor(x) for n, x in tensors.items()}, strict=False)
    raw = model.eval().config.to_dict()
    file = convert(tmp_path / "x.gguf", raw, tensors, tokenizer)
    ours = load_ours(file)
    tokens, mask = reference.draw_inputs(512, seed)
    wanted = golden_torch.torch_logits(model, tokens, mask)[mask]
    logits = np.asarray(pmc_jax.logits(ours, tokens, mask))[mask]
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    exported = reference.load_torch(pmc_jax.export(ours, tmp_path / "out"))
    again = golden_torch.torch_logits(exported, tokens, mask)[mask]
    np.testing.assert_allclose(again, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    if seed == 0:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        again = golden_torch.torch_logits(theirs, tokens, mask)[mask]
        np.testing.assert_allclose(again, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
