"""Logits, float32 and bfloat16, against transformers."""

import json

import numpy as np
import pytest

import pmc_jax

pytest.importorskip("torch")

import golden
import golden_torch
import reference
from reference import SHARED, every_checkpoint, load_ours, load_torch, needs_shared

pytestmark = pytest.mark.parity

DRAWN = [("llama", seed) for seed in range(14)] + [("phi", seed) for seed in range(10)]


def draw_config(family: str, seed: int):
    return reference.draw_llama(seed) if family == "llama" else reference.draw_phi(seed)


def save(folder, family: str, seed: int):
    """A drawn checkpoint, written in its style."""
    return reference.save_styled(folder, draw_config(family, seed), seed)


@pytest.mark.parametrize(("family", "seed"), DRAWN)
def test_drawn_config_gives_the_logits_of_transformers(tmp_path, family, seed):
    folder = save(tmp_path, family, seed)
    theirs = load_torch(folder)
    tokens, mask = reference.draw_inputs(theirs.config.vocab_size, seed)
    expected = golden_torch.torch_logits(theirs, tokens, mask)[mask]
    assert 0.5 < expected.std() < 5  # logits of a size where 1e-4 says something
    found = np.asarray(pmc_jax.logits(load_ours(folder), tokens, mask))[mask]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_drawn_configs_meet_every_switch():
    """The draws above are worth what they vary."""
    drawn = {family: [draw_config(f, s) for f, s in DRAWN if f == family] for family in ("llama", "phi")}
    for family, configs in drawn.items():
        kinds = {"default", "linear", "dynamic"} | ({"llama3"} if family == "llama" else set())
        assert {c.rope_parameters["rope_type"] for c in configs} == kinds
        assert {c.tie_word_embeddings for c in configs} == {True, False}
        assert {c.num_key_value_heads < c.num_attention_heads for c in configs} == {True, False}
        assert len({c.hidden_act for c in configs}) >= 4
        assert len({c.rope_parameters["rope_theta"] for c in configs}) >= 3
    llama, phi = drawn["llama"], drawn["phi"]
    assert {(c.attention_bias, c.mlp_bias) for c in llama} == {(False, False), (True, False), (False, True)}
    assert {c.head_dim * c.num_attention_heads != c.hidden_size for c in llama} == {True, False}
    assert {c.qk_layernorm for c in phi} == {True, False}
    assert len({c.rope_parameters["partial_rotary_factor"] for c in phi}) == 3
    for family in drawn:
        styles = [reference.style(s) for f, s in DRAWN if f == family]
        assert {s["storage"] for s in styles} == set(reference.STORAGE) and {s["sharded"] for s in styles} == {
            True,
            False,
        }
        assert {(s["v4"], c.rope_parameters["rope_type"] == "default") for s, c in zip(styles, drawn[family])} >= {
            ("type", False),
            ("rope_type", False),
        }


def real_rows(name: str, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Questions with their answers as the checkpoint was trained on them; even rows padded on the left, odd ones on the
    right.
    """
    tokenizer = load_ours(SHARED / "checkpoints" / name).tokenizer
    rows = reference.read_rows("forget10")[: count // 2] + reference.read_rows("retain_perturbed")[: count // 2]
    if tokenizer.chat_template:
        chats = [
            [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}] for r in rows
        ]
        ids = [tokenizer.apply_chat_template(c, return_dict=False) for c in chats]
    else:
        ids = [tokenizer(f"Question: {r['question']}\nAnswer: {r['answer']}")["input_ids"] for r in rows]
    longest = max(map(len, ids))
    tokens, mask = np.zeros((len(ids), longest), int), np.zeros((len(ids), longest), bool)
    for i, row in enumerate(ids):
        where = slice(longest - len(row), None) if i % 2 == 0 else slice(len(row))
        tokens[i, where], mask[i, where] = row, True
    return tokens, mask


@needs_shared
@every_checkpoint
def test_shared_checkpoint_gives_the_logits_of_transformers(name):
    """float32 within 1e-4; in bfloat16 our distance to the float32 logits is no larger than transformers' own."""
    folder = SHARED / "checkpoints" / name
    tokens, mask = real_rows(name)
    exact = golden_torch.torch_logits(load_torch(folder), tokens, mask)[mask]
    found = np.asarray(pmc_jax.logits(load_ours(folder), tokens, mask))[mask]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)

    theirs = np.abs(golden_torch.torch_logits(load_torch(folder, "bfloat16"), tokens, mask)[mask] - exact)
    low = pmc_jax.logits(load_ours(folder, "bfloat16"), tokens, mask)
    assert low.dtype == np.float32
    ours = np.abs(np.asarray(low)[mask] - exact)
    print(
        f"{name}: bfloat16 error, mean and max: ours {ours.mean():.2e} {ours.max():.2e}, transformers "
        f"{theirs.mean():.2e} {theirs.max():.2e}"
    )
    assert ours.mean() > 0  # bfloat16 was computed in, and not float32 behind its back
    assert ours.mean() < 1.2 * theirs.mean()
    assert ours.max() < 1.5 * theirs.max()  # the largest of millions of roundings is noisier than their mean


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_dtype_in_the_config_does_not_decide_the_numbers(tmp_path, family):
    """A checkpoint is computed in the dtype asked for, whatever config.json says about its storage."""
    folder = save(tmp_path, family, 0)
    tokens, mask = reference.draw_inputs(40, 0, 12)
    before = np.asarray(pmc_jax.logits(load_ours(folder), tokens, mask))
    raw = json.loads((folder / "config.json").read_text()) | {"dtype": "float16", "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(raw))
    np.testing.assert_array_equal(np.asarray(pmc_jax.logits(load_ours(folder), tokens, mask)), before)


def test_stored_golden_values_are_what_transformers_computes(tmp_path):
    """Golden values do not go stale: an update of golden.py without a new run of it shows here."""
    logits, values = golden_torch.compute(tmp_path)
    stored_logits, stored = golden.load_stored()
    assert logits.keys() == stored_logits.keys() and values.keys() == stored.keys()
    for name in logits:
        np.testing.assert_allclose(logits[name], stored_logits[name], rtol=0, atol=1e-5)
        assert values[name]["gradient_norms"] == pytest.approx(stored[name]["gradient_norms"], rel=1e-5)
        assert (
            values[name]["loss"] == pytest.approx(stored[name]["loss"], rel=1e-5)
            and values[name]["greedy"] == stored[name]["greedy"]
        )
