"""GGUF files of other architectures than Llama's: the same numbers, config and export as the folder."""

import dataclasses

import golden
import numpy as np
import pytest
from family_configs import LONG, PLAIN, SIZES, YARN
from gguf_converter import convert
from safetensors.numpy import load_file
from test_gguf_refused import refused

import pmc_jax
from pmc_jax.models import gguf, pretrained

PARTIAL = LONG | {"partial_rotary_factor": 0.75}


def make_raw(model_type: str, architecture: str, rope: dict, **more) -> dict:
    raw = SIZES | {"max_position_embeddings": 48, "tie_word_embeddings": True}
    return raw | {"model_type": model_type, "architectures": [architecture], "rope_parameters": rope} | more


TWO_ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
GEMMA = dict(sliding_window=7, query_pre_attn_scalar=8)
CAPS = dict(attn_logit_softcapping=20.0, final_logit_softcapping=5.0)
RAW = {
    "mistral": make_raw("mistral", "MistralForCausalLM", PLAIN, sliding_window=None),
    "qwen2": make_raw("qwen2", "Qwen2ForCausalLM", YARN | {"beta_fast": 4.0, "attention_factor": 1.5}),
    "qwen3": make_raw("qwen3", "Qwen3ForCausalLM", PLAIN, head_dim=12, tie_word_embeddings=False),
    "phi3": make_raw(
        "phi3", "Phi3ForCausalLM", PLAIN, sliding_window=9, original_max_position_embeddings=48, head_dim=None
    ),
    "phi3-long": make_raw(
        "phi3", "Phi3ForCausalLM", PARTIAL, sliding_window=None, original_max_position_embeddings=16, head_dim=None
    ),
    "gemma2": make_raw("gemma2", "Gemma2ForCausalLM", PLAIN, **GEMMA, **CAPS),
    "gemma3": make_raw("gemma3_text", "Gemma3ForCausalLM", TWO_ROPES, **GEMMA, num_hidden_layers=7),
}


def make(name, tokenizer):
    """A drawn checkpoint, and its tensors."""
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    checkpoint = pretrained.create(RAW[name] | ids, tokenizer, 0, mesh=golden.package_mesh())
    shapes = {n: x.shape for n, x in golden.source_tensors(checkpoint, checkpoint.params).items()}
    return checkpoint, golden.draw_tensors(shapes, 3)


@pytest.mark.parametrize("name", RAW)
def test_a_file_holds_what_it_was_made_from(name, tokenizer, tmp_path):
    checkpoint, tensors = make(name, tokenizer)
    loaded = pmc_jax.load(convert(tmp_path / "x.gguf", RAW[name], tensors, tokenizer), mesh=golden.package_mesh())
    read = golden.source_tensors(loaded, loaded.params)
    assert read.keys() == tensors.keys()
    for tensor, values in tensors.items():
        np.testing.assert_allclose(read[tensor], values, rtol=0, atol=2e-7, err_msg=tensor)
    # A Mistral is called a Llama there, and is one.
    assert loaded.config == dataclasses.replace(checkpoint.config, family=loaded.config.family)
    assert loaded.end_tokens == checkpoint.end_tokens
    again = pmc_jax.load(pmc_jax.export(loaded, tmp_path / "out"), mesh=golden.package_mesh())
    assert again.config == loaded.config
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all((written[tensor] == values).all() for tensor, values in read.items())


def test_the_scale_of_the_largest_gemma(tokenizer, tmp_path):
    """llama.cpp tells it by its number of layers, and so do we."""
    _, tensors = make("gemma2", tokenizer)
    raw = RAW["gemma2"] | {"num_hidden_layers": 46, "head_dim": 12}
    read = gguf.read(convert(tmp_path / "x.gguf", raw, tensors, tokenizer)).raw_config
    assert read["query_pre_attn_scalar"] == 32 // 4 and read["head_dim"] == 12


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["phi3", "gemma2"])
def test_quantised_matrices_and_slices(name, kind, tokenizer, tmp_path):
    """A part of a fused tensor, and a norm that is stored with 1 more."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    _, tensors = make(name, tokenizer)
    wide = {n: x for n, x in tensors.items() if x.ndim == 1 or x.shape[1] % 32 == 0}
    path = convert(tmp_path / "x.gguf", RAW[name], wide, tokenizer, kind)
    read = gguf.read(path).tensors
    for tensor, values in wide.items():
        raw = GGMLQuantizationType[kind]
        expected = dequantize(quantize(values, raw), raw) if values.ndim == 2 else values
        index = (slice(3, 20), slice(2, 9))[: values.ndim]
        np.testing.assert_allclose(read[tensor][index], expected[index], atol=2e-7, err_msg=tensor)


def test_what_a_file_does_not_say_is_refused(tokenizer, tmp_path, monkeypatch):
    import gguf_converter

    _, tensors = make("phi3-long", tokenizer)
    cut = RAW["phi3-long"] | {"rope_parameters": PARTIAL | {"long_factor": [1.0, 2.0]}}
    assert refused(convert(tmp_path / "cut.gguf", cut, tensors, tokenizer), "rope_factors_long.weight", "3 numbers")
    monkeypatch.setattr(gguf_converter, "write_phi3", lambda writer, raw: None)
    early = convert(tmp_path / "early.gguf", RAW["phi3"], tensors, tokenizer)
    assert refused(early, "no 'phi3.attention.sliding_window'", "newer llama.cpp")


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("qwen2", "It's 42\n", ["It", "'s", "Ġ", "4", "2", "Ċ"]),
        ("dbrx", "It's 1234\n", ["It", "'s", "Ġ", "123", "4", "Ċ"]),
        ("gpt-4o", "aBc's 1234/\n", ["a", "Bc's", "Ġ", "123", "4", "/Ċ"]),
    ],
)
def test_texts_are_cut_into_words_as_the_tokenizer_says(pre, text, words, tmp_path):
    from tokenizers.pre_tokenizers import ByteLevel

    fields = {"tokens": sorted(ByteLevel.alphabet()), "merges": [], "pre": pre}
    core = gguf.gguf_tokenizer.byte_level_bpe(tmp_path / "x.gguf", fields)
    assert [word for word, _ in core.pre_tokenizer.pre_tokenize_str(text)] == words


def test_tokens_of_phi_3_take_the_white_space_behind_them(tmp_path):
    tokens = ["<unk>", "<s>", "<|user|>", "<|end|>", "▁", "a", "\n"]
    metadata = {
        "general.architecture": "phi3",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 4, 4, 1, 1, 1],
        "tokenizer.ggml.add_bos_token": False,
    }
    tokenizer = gguf.gguf_tokenizer.make_tokenizer(tmp_path / "x.gguf", metadata)
    ids = tokenizer("<|user|>\na<|end|>\n\n")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|user|>", "▁", "a", "<|end|>"]
