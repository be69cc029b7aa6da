"""Checkpoints that say one head and hold another, or none: our logits are those of transformers."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pmc_jax

pytestmark = pytest.mark.parity
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def altered(case, made):
    """The tensors of a tied checkpoint, its head as the case says."""
    embed = made[EMBED]
    if case == "another head":
        return made | {HEAD: np.random.default_rng(0).standard_normal(embed.shape).astype(np.float32)}
    if case == "a copy":
        return made | {HEAD: embed.copy()}
    return {name: x for name, x in made.items() if name != EMBED} | {HEAD: embed}


@pytest.mark.parametrize("case", ["another head", "a copy", "the head alone"])
@pytest.mark.parametrize("exported", [False, True])
def test_the_head_is_what_transformers_takes_for_it(fresh_checkpoint, tmp_path, case, exported):
    import torch
    import transformers

    folder = pmc_jax.export(fresh_checkpoint, tmp_path / "c")
    save_file(altered(case, load_file(folder / "model.safetensors")), folder / "model.safetensors")
    checkpoint = pmc_jax.load(folder)
    if exported:
        folder = pmc_jax.export(checkpoint, tmp_path / "out")
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] == (case != "another head")
    tokens = np.random.default_rng(1).integers(0, 512, (2, 17))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(np.asarray(pmc_jax.logits(checkpoint, tokens)), wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_single_file_beside_an_index_is_what_transformers_takes(fresh_checkpoint, tmp_path):
    import transformers

    folder = pmc_jax.export(fresh_checkpoint, tmp_path / "c")
    made = load_file(folder / "model.safetensors")
    old = {name: x + 1 for name, x in made.items()}
    save_file(old, folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(old, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.detach().numpy()
    assert (np.asarray(pmc_jax.load(folder).params["embed"]) == theirs).all() and (theirs == made[EMBED]).all()
