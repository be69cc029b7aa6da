"""GGUF files that are refused, each in one line: other architectures, broken files, what cannot be read."""

import builtins

import numpy as np
import pytest
from gguf_files import gguf_name, write_gguf

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.models import gguf


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        pmc_jax.load(str(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message, message
    return True


def test_other_architectures_are_refused_by_name(tiny_checkpoint, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", tiny_checkpoint, architecture="falcon")
    assert refused(path, "'falcon'", "supported: 'llama', 'qwen2', 'qwen3', 'phi3', 'gemma2', 'gemma3'")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.expert_count": 8}, ["8 experts"]),
        ({"split.count": 3}, ["one of 3 parts", "--merge"]),
        ({"llama.rope.scaling.type": "ntk", "llama.rope.scaling.factor": 4.0}, ["'ntk'", "linear, yarn, longrope"]),
        ({"llama.rope.scaling.type": "longrope"}, ["rope_factors_long.weight, rope_factors_short.weight"]),
        ({"llama.rope.scaling.type": "yarn"}, ["no 'llama.rope.scaling.factor'"]),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.yarn_ext_factor": 0.5,
            },
            ["yarn_ext_factor is not 1.0"],
        ),
        ({"llama.rope.dimension_count": 8}, ["llama.rope.dimension_count", "16"]),
        ({"llama.attention.head_count_kv": [2, 4]}, ["head_count_kv differs between layers"]),
        ({"llama.block_count": None}, ["no 'llama.block_count'"]),
        ({"llama.embedding_length": "wide"}, ["llama.embedding_length is 'wide'", "a number above 0"]),
        ({"llama.attention.head_count": 0}, ["llama.attention.head_count is 0"]),
        ({"llama.block_count": 1}, ["not in the model", "model.layers.1."]),
        ({"llama.block_count": 3}, ["missing", "model.layers.2."]),
        ({"llama.feed_forward_length": 96}, ["wrong shape", "mlp.down_proj.weight"]),
    ],
)
def test_a_file_that_is_not_a_whole_plain_llama_is_refused(metadata, words, tiny_checkpoint, tmp_path):
    assert refused(write_gguf(tmp_path / "x.gguf", tiny_checkpoint, metadata=metadata), *words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("pre", "tekken", ["'tekken'", "llama-bpe"]), ("model", "bert", ["'bert'", "'gpt2', 'llama'"])],
)
def test_tokenizers_of_other_kinds_are_refused_by_name(key, value, words, tiny_gguf):
    header = gguf.read_header(tiny_gguf)
    with pytest.raises(UserError) as caught:
        gguf.gguf_tokenizer.make_tokenizer(tiny_gguf, header.metadata | {f"tokenizer.ggml.{key}": value})
    assert all(word in str(caught.value) for word in words)


def test_factors_that_are_not_llama3s_are_refused(tiny_checkpoint, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", tiny_checkpoint, rope_factors=np.linspace(1, 7, 8))
    assert refused(path, "rope_freqs.weight", "llama3")


def test_a_cut_file_is_refused_wherever_it_is_cut(tiny_gguf, tmp_path):
    whole, cut = tiny_gguf.read_bytes(), tmp_path / "cut.gguf"
    header_end = min(t.offset for t in gguf.read_header(tiny_gguf).tensors.values())
    for length in [5, 8, 20, 24, 40, *range(100, header_end - 40, 997), header_end + 1, len(whole) - 1000]:
        cut.write_bytes(whole[:length])
        assert refused(cut, "cut or damaged")


def test_a_damaged_file_is_refused(tiny_gguf, tmp_path):
    """No byte of the header, changed to anything, leads to another error than one line."""
    whole, path = tiny_gguf.read_bytes(), tmp_path / "damaged.gguf"
    rng = np.random.default_rng(0)
    header_end = min(t.offset for t in gguf.read_header(tiny_gguf).tensors.values())
    spots = [*range(4, 200), *rng.integers(200, header_end, 100), *range(header_end - 120, header_end)]
    for spot in spots:
        damaged = bytearray(whole)
        damaged[spot] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            gguf.read(path)
        except UserError as error:
            assert "\n" not in str(error)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    for name, content in (("x.gguf", b"PK\3\4 a zip"), ("y.bin", b""), ("z.gguf", b"GG")):
        (tmp_path / name).write_bytes(content)
        assert refused(tmp_path / name, "not a GGUF file")
    assert refused(tmp_path / "absent.gguf", "no such file")


def test_other_versions_and_byte_orders_are_refused(tiny_gguf, tmp_path):
    for version, words in ((b"\1\0\0\0", ["version 1"]), (b"\0\0\0\3", ["big-endian"])):
        path = tmp_path / "x.gguf"
        whole = bytearray(tiny_gguf.read_bytes())
        whole[4:8] = version
        path.write_bytes(whole)
        assert refused(path, *words)


@pytest.mark.parametrize(("number", "label"), [(24, "I8"), (99, "number 99")])
def test_a_tensor_type_that_is_not_known_is_refused_by_name(number, label, tiny_gguf, tmp_path):
    path = tmp_path / "x.gguf"
    whole = bytearray(tiny_gguf.read_bytes())
    name = gguf_name("model.layers.1.mlp.up_proj.weight").encode()
    spot = whole.index(name) + len(name) + 4 + 2 * 8  # the type follows the number of axes and two lengths
    assert whole[spot : spot + 4] == b"\0\0\0\0"
    whole[spot] = number
    path.write_bytes(whole)
    assert refused(path, label, name.decode())


def test_without_the_library_the_extra_is_named(tiny_gguf, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert refused(tiny_gguf, "pip install 'pmc-jax[gguf]'")
