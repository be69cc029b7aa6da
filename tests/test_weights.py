import json
import shutil

import huggingface_hub
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.models import pretrained, weights
from pmc_jax.plan.abstract import read_shape


def change_config(folder, **changes):
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


def refused(folder, *words, **options):
    with pytest.raises(UserError) as caught:
        pmc_jax.load(str(folder), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return True


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(
        a.dtype == b.dtype and (np.asarray(a) == np.asarray(b)).all()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other))
    )


@pytest.mark.parametrize("which", ["tiny_checkpoint", "tiny_phi"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_and_load_give_the_same_bits(which, dtype, request, tmp_path):
    checkpoint = request.getfixturevalue(which)
    checkpoint = checkpoint.replace(params=jax.tree.map(lambda x: x.astype(dtype), checkpoint.params))
    folder = pmc_jax.export(checkpoint, tmp_path / "out")
    again = pmc_jax.load(str(folder), dtype=dtype)
    assert same(checkpoint.params, again.params)
    assert again.config == checkpoint.config and again.end_tokens == checkpoint.end_tokens
    assert again.tokenizer.chat_template == checkpoint.tokenizer.chat_template
    assert again.tokenizer("Who is it?")["input_ids"] == checkpoint.tokenizer("Who is it?")["input_ids"]
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == dtype
    second = pmc_jax.export(again, tmp_path / "again")
    assert (folder / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_what_an_export_holds(tiny_folder, tiny_checkpoint):
    tensors = load_file(tiny_folder / "model.safetensors")
    assert tensors["model.embed_tokens.weight"].shape == (512, 64) and "lm_head.weight" not in tensors, (
        "the head is tied"
    )
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64) and tensors[
        "model.layers.0.mlp.down_proj.weight"
    ].shape == (64, 128)
    assert len(tensors) == 2 * 9 + 2
    query_DNH = np.asarray(tiny_checkpoint.params["layer_1"]["attention"]["query"])
    flat = tensors["model.layers.1.self_attn.q_proj.weight"]  # [N * H, D], head by head
    assert (flat == query_DNH.transpose(1, 2, 0).reshape(64, 64)).all()


def test_an_export_replaces_an_older_one_and_nothing_else(tiny_checkpoint, tmp_path):
    out = pmc_jax.export(tiny_checkpoint, tmp_path / "out")
    before = sorted(p.name for p in out.iterdir())
    pmc_jax.export(tiny_checkpoint, out)
    assert sorted(p.name for p in out.iterdir()) == before and "model.safetensors" in before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"did not write: mine.txt"):
        pmc_jax.export(tiny_checkpoint, out)
    assert (out / "mine.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="did not write"):
        pmc_jax.export(tiny_checkpoint, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("shard_bytes", [1, 40_000, 10**9])
def test_files_of_any_size(tiny_checkpoint, tiny_folder, tmp_path, shard_bytes):
    folder = shutil.copytree(tiny_folder, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    weights.save_params(folder, tiny_checkpoint.params, tiny_checkpoint.family, tiny_checkpoint.model, shard_bytes)
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    if shard_bytes == 10**9:
        assert files == ["model.safetensors"]
    else:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert len(files) > 3 and set(index["weight_map"].values()) == set(files)
        assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
        assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(tiny_checkpoint.params))
    assert same(pmc_jax.load(str(folder)).params, tiny_checkpoint.params)


def test_other_dtypes_are_cast_and_integers_refused(damaged, tiny_checkpoint):
    change_tensors(
        damaged, lambda t: {k: v.astype(ml_dtypes.bfloat16 if "mlp" in k else np.float16) for k, v in t.items()}
    )
    loaded = pmc_jax.load(str(damaged))
    for a, b in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(tiny_checkpoint.params)):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)
    assert jax.tree.leaves(pmc_jax.load(str(damaged), dtype="bfloat16").params)[0].dtype == ml_dtypes.bfloat16
    change_tensors(damaged, lambda t: t | {"model.norm.weight": np.ones(64, np.int32)})
    assert refused(damaged, "model.norm.weight is I32")
    assert refused(damaged, "model.dtype='int8'", "bfloat16", dtype="int8")


def test_missing_extra_and_misshaped_tensors_are_each_named(damaged):
    def spoil(tensors):
        del tensors["model.layers.0.mlp.up_proj.weight"], tensors["model.norm.weight"]
        return tensors | {
            "lora_A": np.zeros(3, np.float32),
            "model.layers.1.mlp.gate_proj.weight": np.zeros((127, 64), np.float32),
        }

    change_tensors(damaged, spoil)
    assert refused(
        damaged,
        "missing: model.layers.0.mlp.up_proj.weight, model.norm.weight",
        "not in the model: lora_A",
        "model.layers.1.mlp.gate_proj.weight is (127, 64), config.json says (128, 64)",
    )


def test_old_buffers_and_the_copy_of_a_tied_head_are_ignored(damaged, tiny_checkpoint):
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
    change_tensors(damaged, lambda t: t | old | {"lm_head.weight": t["model.embed_tokens.weight"].copy()})
    assert same(pmc_jax.load(str(damaged)).params, tiny_checkpoint.params)


def test_an_untied_head_must_be_there(damaged):
    change_config(damaged, tie_word_embeddings=False)
    assert refused(damaged, "missing: lm_head.weight")


def test_files_that_cannot_be_read(damaged):
    file = damaged / "model.safetensors"
    whole = file.read_bytes()
    for broken in (whole[:-100], whole[:50], b"", b"not safetensors at all"):
        file.write_bytes(broken)
        assert refused(damaged, "model.safetensors", "truncated")
    file.unlink()
    assert refused(damaged, "no model.safetensors", "none is there")
    (damaged / "pytorch_model.bin").write_bytes(b"pickle")
    assert refused(damaged, "only pytorch_model.bin", "never opened", "safetensors")


def test_an_index_that_names_an_absent_file(damaged):
    names = load_file(damaged / "model.safetensors")
    (damaged / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (damaged / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(damaged, "model-00001-of-00002.safetensors", "missing")
    for broken in ("{", "[]", "{}", '{"weight_map": []}'):
        (damaged / "model.safetensors.index.json").write_text(broken)
        assert refused(damaged, "model.safetensors.index.json", "weight_map")


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(architectures=["GPT2LMHeadModel"]), ["GPT2LMHeadModel", "supported: Llama, Phi, Qwen2", "ForCausalLM"]),
        (dict(architectures=None, model_type="mamba"), ["mamba"]),
        (
            dict(architectures=["Qwen3MoeForCausalLM"]),
            ["Qwen3MoeForCausalLM is not supported (a mixture of experts)", "supported: Llama"],
        ),
        (dict(architectures=["MambaForCausalLM"]), ["MambaForCausalLM", "layers that are not attention"]),
        (dict(architectures=["Qwen3NextForCausalLM"]), ["layers that are not attention"]),
        (dict(architectures=["Gemma3nForConditionalGeneration"]), ["a Gemma with parts of its own"]),
        (dict(architectures=["LlavaForConditionalGeneration"]), ["a model of more than text", "Gemma3 (each"]),
        (dict(rope_scaling={"rope_type": "ntk", "factor": 2.0}), ["ntk", "llama3"]),
        (dict(rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}), ["longrope", "short_factor"]),
        (dict(rope_scaling={"rope_type": "linear"}), ["linear", "factor"]),
        (dict(hidden_act="swish2"), ["swish2", "silu"]),
        (dict(hidden_size=None), ["hidden_size"]),
        (dict(num_key_value_heads=3), ["num_key_value_heads=3", "num_attention_heads=4"]),
        (dict(num_attention_heads=7, num_key_value_heads=7), ["hidden_size=64", "num_attention_heads=7"]),
        (dict(num_hidden_layers=3), ["missing: model.layers.2."]),
        (dict(vocab_size=600), ["model.embed_tokens.weight is (512, 64), config.json says (600, 64)"]),
        (dict(attention_bias=True), ["missing: ", "q_proj.bias"]),
    ],
)
def test_configs_that_are_refused_by_name(damaged, changes, words):
    change_config(damaged, **changes)
    assert refused(damaged, *words)


def test_windows_and_layers_that_are_refused_by_name(damaged):
    change_config(damaged, architectures=["Qwen3ForCausalLM"], model_type="qwen3", layer_types=["linear_attention"] * 2)
    assert refused(damaged, "layer_types has linear_attention", "sliding_attention")
    change_config(damaged, layer_types=["full_attention"])
    assert refused(damaged, "layer_types has 1 entries", "num_hidden_layers=2")
    change_config(damaged, architectures=["Gemma2ForCausalLM"], use_bidirectional_attention=True)
    assert refused(damaged, "use_bidirectional_attention")


def test_an_adapter_is_no_model(damaged):
    (damaged / "config.json").unlink()
    (damaged / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    assert refused(damaged, "an adapter of someone/base", "merge it into that model first, or load someone/base")
    with pytest.raises(UserError, match="an adapter of someone/base, not a model"):
        read_shape(str(damaged))
    (damaged / "adapter_config.json").write_text("{}")
    assert refused(damaged, "an adapter of a model that it does not name", "merge")


def test_missing_and_broken_small_files(damaged, tmp_path):
    (damaged / "config.json").write_text("{not json")
    assert refused(damaged, "config.json", "not valid JSON")
    (damaged / "config.json").write_text("[1]")
    assert refused(damaged, "config.json")
    (damaged / "config.json").unlink()
    assert refused(damaged, "config.json", "missing")
    assert refused(tmp_path / "nowhere", "no such folder")


def test_a_folder_without_a_tokenizer(damaged):
    for file in damaged.glob("tokenizer*"):
        file.unlink()
    assert refused(damaged, "tokenizer")


def test_end_tokens_come_from_all_three_places(damaged, tiny_checkpoint):
    own = tiny_checkpoint.tokenizer.eos_token_id
    change_config(damaged, eos_token_id=7)
    (damaged / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 8]}))
    assert pmc_jax.load(str(damaged)).end_tokens == tuple(sorted({own, 7, 8, 9}))


def test_a_hub_id_is_downloaded(monkeypatch, tiny_folder, tiny_checkpoint):
    asked = []

    def download(repo, allow_patterns=None, **_):
        asked.append((repo, allow_patterns))
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    checkpoint = pmc_jax.load("someone/tiny-llama")
    assert same(checkpoint.params, tiny_checkpoint.params) and checkpoint.source == "someone/tiny-llama"
    ((repo, patterns),) = asked
    assert repo == "someone/tiny-llama" and "*.safetensors" in patterns and not any(".bin" in p for p in patterns)


def test_a_hub_that_fails_says_so_in_one_line(monkeypatch):
    def download(*_, **__):
        raise OSError("401 Client Error: gated repo\nsecond line\nthird line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert refused("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "hub", "401")


def test_a_hub_that_is_out_of_reach():
    """Not stubbed: the tests run with the hub's client offline."""
    assert refused("nobody/nothing-of-the-kind", "nobody/nothing-of-the-kind", "hub")


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "~/none", "none", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id(path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    assert refused(path, "no such folder", "hub id")


def test_fresh_parameters_depend_on_the_seed_only(fresh_checkpoint, tokenizer):
    one, same_seed, other = (pretrained.create(fresh_checkpoint.raw_config, tokenizer, seed=s) for s in (1, 1, 2))
    assert same(one.params, same_seed.params) and same(one.params, fresh_checkpoint.params)
    assert not (np.asarray(one.params["embed"]) == np.asarray(other.params["embed"])).any()
    assert np.std(np.asarray(one.params["embed"])) == pytest.approx(0.02, rel=0.05)
