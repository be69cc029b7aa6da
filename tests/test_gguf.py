"""GGUF files in: numbers, tokenizer and settings are those of the Hugging Face folder that the file was made from."""

import json

import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from gguf_files import interleave, source_tensors, write_gguf
from safetensors.numpy import load_file
from tiny import LLAMA

import pmc_jax
from pmc_jax.models import gguf, gguf_rope, pretrained
from pmc_jax.plan.abstract import read_shape
from pmc_jax.runs.evaluate import check_checkpoint

TEXTS = ["Who is it?", "Don't  say\n\n it's 12345 — naïve café 日本語 🙂\t.", "<|end|> in a text", "", " x "]
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0}


def make(tokenizer, **changes):
    """An untrained small Llama."""
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return pretrained.create(LLAMA | ids | changes, tokenizer, seed=3)


def assert_same_params(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_a_float32_file_is_the_checkpoint_that_it_was_made_from(tiny_gguf, tiny_checkpoint, forget_questions):
    loaded = pmc_jax.load(str(tiny_gguf))
    assert_same_params(loaded, tiny_checkpoint)
    assert loaded.config == tiny_checkpoint.config and loaded.end_tokens == tiny_checkpoint.end_tokens
    ours = pmc_jax.sample(loaded, forget_questions, temperature=0.0)
    assert ours == pmc_jax.sample(tiny_checkpoint, forget_questions, temperature=0.0)


def test_the_tokenizer_and_the_chat_template_come_from_the_file(tiny_gguf, tokenizer):
    loaded = pmc_jax.load(str(tiny_gguf)).tokenizer
    for text in TEXTS:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        ids = tokenizer(text)["input_ids"]
        assert loaded.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_special_tokens=True)
    turns = [{"role": "user", "content": "Who is it?"}]
    chats = [t.apply_chat_template(turns, add_generation_prompt=True, return_dict=False) for t in (loaded, tokenizer)]
    assert chats[0] == chats[1]
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_the_export_of_a_file_is_a_folder_with_the_same_numbers(tiny_gguf, tiny_folder, tmp_path):
    folder = pmc_jax.export(pmc_jax.load(str(tiny_gguf)), tmp_path / "out")
    expected, exported = (load_file(f / "model.safetensors") for f in (tiny_folder, folder))
    assert expected.keys() == exported.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(exported[name], tensor)
    again = pmc_jax.load(str(folder))
    assert again.config == pmc_jax.load(str(tiny_folder)).config
    assert again.tokenizer("Who is it?")["input_ids"]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_matrices_are_what_the_library_makes_of_them(kind, tied, tokenizer, tmp_path):
    checkpoint = make(tokenizer, tie_word_embeddings=tied)
    loaded = pmc_jax.load(str(write_gguf(tmp_path / "x.gguf", checkpoint, kind)))
    assert loaded.config.tied_head is tied
    raw = GGMLQuantizationType[kind]
    tensors = source_tensors(loaded)
    assert ("lm_head.weight" in tensors) is not tied
    for name, tensor in source_tensors(checkpoint).items():
        rounded = dequantize(quantize(tensor, raw), raw) if tensor.ndim == 2 else tensor
        np.testing.assert_array_equal(tensors[name], rounded, err_msg=name)  # each row is quantised by itself
        assert tensor.ndim == 1 or (rounded != tensor).any()


def dequantised_types():
    """Every type that the library dequantises."""
    for kind, (_, block_bytes) in GGML_QUANT_SIZES.items():
        try:
            dequantize(np.zeros((1, block_bytes), np.uint8), kind)
        except NotImplementedError:
            continue
        yield kind.name


@pytest.mark.parametrize("kind", list(dequantised_types()))
def test_every_type_of_the_library_is_read(kind, tokenizer, tmp_path, monkeypatch):
    """Including those that it cannot write: their blocks are drawn here."""
    import gguf_files

    drawn = {}

    def add_drawn(writer, name, tensor, _):
        raw = GGMLQuantizationType[kind]
        block, block_bytes = GGML_QUANT_SIZES[raw]
        if name != "blk.0.ffn_down.weight":
            return writer.add_tensor(name, tensor)
        shape = (tensor.shape[0], tensor.shape[1] // block * block_bytes)
        drawn["bytes"] = np.random.default_rng(0).integers(0, 32, shape, dtype=np.uint8)
        return writer.add_tensor(name, drawn["bytes"], raw_dtype=raw)

    monkeypatch.setattr(gguf_files, "add_tensor", add_drawn)
    checkpoint = make(tokenizer, intermediate_size=512, num_hidden_layers=1)
    tensors = gguf.read(write_gguf(tmp_path / "x.gguf", checkpoint)).tensors
    tensor = tensors["model.layers.0.mlp.down_proj.weight"]
    assert tensor.shape == (64, 512)
    expected = dequantize(drawn["bytes"], GGMLQuantizationType[kind])
    np.testing.assert_array_equal(tensor[slice(3, 40), slice(7, 300)], expected[3:40, 7:300])


def test_rows_of_queries_and_keys_are_put_back_slice_by_slice(tokenizer, tmp_path):
    """A device's share of the rows is read without the rest."""
    checkpoint = make(tokenizer, attention_bias=True)
    tensors = gguf.read(write_gguf(tmp_path / "x.gguf", checkpoint)).tensors
    for name, expected in source_tensors(checkpoint).items():
        stored, (first, *rest) = tensors[name], expected.shape
        for rows in (slice(None), slice(first // 2, first), slice(0, first // 4)):
            index = (rows, slice(5, 31)) if rest else (rows,)
            np.testing.assert_array_equal(stored[index], expected[index], err_msg=name)
    query = source_tensors(checkpoint)["model.layers.0.self_attn.q_proj.weight"]
    assert (interleave(query, 4) != query).any()


@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        (None, 256),
        ({"rope_type": "linear", "factor": 2.5}, 256),
        (LLAMA3 | {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 131072),
        (LLAMA3 | {"high_freq_factor": 3.0, "original_max_position_embeddings": 64}, 256),
    ],
)
def test_rope_scaling_comes_through(scaling, length, tokenizer, tmp_path):
    checkpoint = make(tokenizer, rope_scaling=scaling, max_position_embeddings=length, head_dim=32)
    metadata, factors = {}, None
    if scaling and scaling["rope_type"] == "linear":
        metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": scaling["factor"]}
    elif scaling:
        settings = [scaling[key] for key in ("factor", *gguf_rope.PUBLISHED_LLAMA3)]
        factors = gguf_rope.llama3_factors(2 * np.pi * 10000.0 ** (np.arange(0, 32, 2) / 32), *settings)
        assert ((1 < factors) & (factors < 4)).sum() >= 2 or length > 256  # otherwise the published settings are met
    loaded = pmc_jax.load(str(write_gguf(tmp_path / "x.gguf", checkpoint, metadata=metadata, rope_factors=factors)))
    assert loaded.config == checkpoint.config
    tokens = np.arange(200)[None] % 512
    np.testing.assert_array_equal(pmc_jax.logits(loaded, tokens), pmc_jax.logits(checkpoint, tokens))


def test_the_published_factors_of_llama_3_are_recognised():
    """Llama-3.2-1B: head width 64, theta 500000, factor 32."""
    wavelengths = 2 * np.pi * 500000.0 ** (np.arange(0, 64, 2) / 64)
    factors = gguf_rope.llama3_factors(wavelengths, 32.0, 1.0, 4.0, 8192).astype(np.float32)
    assert (factors == 1).sum() == 15 and (factors == 32).sum() == 14
    scaling = gguf_rope.fit_llama3(factors.astype(np.float64), 500000.0)
    assert scaling == {"rope_type": "llama3", "factor": 32.0, **gguf_rope.PUBLISHED_LLAMA3}
    assert gguf_rope.fit_llama3(factors[::-1].astype(np.float64), 500000.0) is None


def test_what_is_not_stated_has_llama_cpps_defaults(tokenizer, tmp_path):
    metadata = dict.fromkeys(("llama.attention.key_length", "llama.rope.dimension_count", "llama.rope.freq_base"))
    checkpoint = make(tokenizer, num_key_value_heads=4)
    path = write_gguf(tmp_path / "x.gguf", checkpoint, metadata=metadata | {"llama.attention.head_count_kv": None})
    assert pmc_jax.load(str(path)).config == checkpoint.config


def test_several_end_tokens(tiny_checkpoint, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", tiny_checkpoint, metadata={"tokenizer.ggml.eot_token_id": 9})
    loaded = pmc_jax.load(str(path))
    assert loaded.end_tokens == tuple(sorted({9, tiny_checkpoint.tokenizer.eos_token_id}))
    folder = pmc_jax.export(loaded, tmp_path / "out")
    assert 9 in json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_have_the_dtype_asked_for(dtype, tiny_gguf, tiny_folder):
    loaded, expected = (pmc_jax.load(str(path), dtype=dtype) for path in (tiny_gguf, tiny_folder))
    assert {str(x.dtype) for x in jax.tree.leaves(loaded.params)} == {dtype}
    assert_same_params(loaded, expected)


def test_sentencepiece_tokens_are_merged_by_score(tmp_path):
    """A vocabulary such as Llama 2's: a space before the text, bytes for what is not in it, a begin token."""
    words = ["▁", "l", "o", "w", "e", "r", "lo", "▁lo", "ow", "low", "▁low", "er"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [0.0] * 259 + [-1e9] * 6 + [-float(i) for i in range(6)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer = gguf.gguf_tokenizer.make_tokenizer(tmp_path / "x.gguf", metadata)
    assert tokenizer.tokenize("lower low</s>é") == ["▁low", "er", "▁low", "</s>", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer("low")["input_ids"] == [1, tokens.index("▁low")]
    ids = tokenizer("lower low é")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "lower low é"


def test_every_setting_that_names_a_checkpoint_takes_a_file(tiny_gguf, tiny_checkpoint, cli, tmp_path):
    assert read_shape(str(tiny_gguf))["hidden_size"] == 64
    check_checkpoint("evaluate.original_model", str(tiny_gguf), "")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:5000])
    done = cli("evaluate", f"--config.model.path={tiny_gguf}", f"--config.evaluate.retain_model={cut}", "--workdir=x")
    assert done.code == 2 and f"evaluate.retain_model='{cut}'" in done.err and "cut or damaged" in done.err
