"""What `export` writes is what transformers loads: the same logits, tensors, tokenizer and chat template."""

import json

import jax
import numpy as np
import pytest

import pmc_jax
from pmc_jax.models import weights

pytest.importorskip("torch")

import golden_torch
import reference
import torch
import transformers
from reference import SHARED, every_checkpoint, load_ours, load_torch, needs_shared

pytestmark = pytest.mark.parity


def assert_same_tensors(ours, theirs) -> None:
    """Two transformers models hold the same tensors, bit for bit."""
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "seed"), [("llama", 0), ("llama", 5), ("phi", 1), ("phi", 2)])
def test_export_of_a_drawn_checkpoint_is_the_checkpoint(tmp_path, family, seed, dtype):
    config = reference.draw_llama(seed) if family == "llama" else reference.draw_phi(seed)
    folder = reference.save_drawn(tmp_path / "in", config, seed)
    if seed == 5:
        reference.to_v4(folder, "type")
    ours = load_ours(folder, dtype)
    pmc_jax.export(ours, tmp_path / "out")
    exported, original = load_torch(tmp_path / "out", dtype), load_torch(folder, dtype)
    assert_same_tensors(exported, original)
    tokens, mask = reference.draw_inputs(config.vocab_size, seed)
    np.testing.assert_array_equal(
        golden_torch.torch_logits(exported, tokens, mask), golden_torch.torch_logits(original, tokens, mask)
    )
    if dtype == "float32":
        np.testing.assert_allclose(
            np.asarray(pmc_jax.logits(ours, tokens, mask))[mask],
            golden_torch.torch_logits(exported, tokens, mask)[mask],
            rtol=0,
            atol=1e-4,
        )
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").dtype == getattr(torch, dtype)


@needs_shared
@every_checkpoint
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_of_a_shared_checkpoint_is_the_checkpoint(tmp_path, name, dtype):
    folder = SHARED / "checkpoints" / name
    pmc_jax.export(load_ours(folder, dtype), tmp_path / "out")
    exported, original = load_torch(tmp_path / "out", dtype), load_torch(folder, dtype)
    assert_same_tensors(exported, original)
    tokens, mask = reference.draw_inputs(4096, 0)
    np.testing.assert_array_equal(
        golden_torch.torch_logits(exported, tokens, mask), golden_torch.torch_logits(original, tokens, mask)
    )
    assert exported.generation_config.to_dict() == original.generation_config.to_dict()


@needs_shared
@every_checkpoint
def test_tokenizer_and_template_round_trip(tmp_path, name):
    folder = SHARED / "checkpoints" / name
    pmc_jax.export(load_ours(folder), tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(f) for f in (folder, tmp_path / "out"))
    texts = [r["question"] for r in reference.read_rows("forget10")] + ["Qui a écrit « Ubu » ?\n\n  42 %", ""]
    assert after(texts)["input_ids"] == before(texts)["input_ids"]
    assert after.batch_decode(after(texts)["input_ids"]) == before.batch_decode(before(texts)["input_ids"])
    assert after.special_tokens_map == before.special_tokens_map and len(after) == len(before)
    assert after.chat_template == before.chat_template
    if before.chat_template:
        chat = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": texts[0]}]
        options = dict(add_generation_prompt=True, date_string="10 Apr 2025", return_dict=False)
        assert after.apply_chat_template(chat, **options) == before.apply_chat_template(chat, **options)


@needs_shared
@every_checkpoint
def test_export_in_many_files_loads(tmp_path, name):
    folder = SHARED / "checkpoints" / name
    ours = load_ours(folder, "bfloat16")
    weights.save_params(tmp_path, ours.params, ours.family, ours.model, shard_bytes=2**20)
    (tmp_path / "config.json").write_text(json.dumps(ours.raw_config))
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 5
    assert_same_tensors(load_torch(tmp_path, "bfloat16"), load_torch(folder, "bfloat16"))


@needs_shared
@every_checkpoint
def test_changed_parameters_are_what_is_exported(tmp_path, name):
    """Not the file that was loaded but the parameters in hand, in transformers' layout: every one is changed, in its
    own way.
    """
    ours = load_ours(SHARED / "checkpoints" / name)
    leaves, tree = jax.tree.flatten(ours.params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    changed = ours.replace(
        params=jax.tree.unflatten(tree, [x + 0.02 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])
    )
    pmc_jax.export(changed, tmp_path / "out")
    tokens, mask = reference.draw_inputs(4096, 1)
    expected = golden_torch.torch_logits(load_torch(tmp_path / "out"), tokens, mask)[mask]
    np.testing.assert_allclose(np.asarray(pmc_jax.logits(changed, tokens, mask))[mask], expected, rtol=0, atol=1e-4)
    assert np.abs(np.asarray(pmc_jax.logits(ours, tokens, mask))[mask] - expected).max() > 0.1
