"""What `export` writes in adapter/ is what PEFT loads: the same logits on the untouched checkpoint as ours with the
adapters merged in.
"""

import numpy as np
import pytest

import pmc_jax
from pmc_jax.distributed.meshes import mesh_of
from pmc_jax.models import lora

pytest.importorskip("torch")

import drawn_families
import peft
import reference
import torch
from reference import load_ours, load_torch

pytestmark = pytest.mark.parity


def make_model(request, tmp_path, family):
    """A checkpoint of the tests, or a drawn one."""
    if family in ("llama", "phi"):
        return request.getfixturevalue({"llama": "tiny_checkpoint", "phi": "tiny_phi"}[family])
    return load_ours(reference.save_drawn(tmp_path / "drawn", drawn_families.DRAW[family](1), 1))


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", "all"),
        ("llama", "q_proj,v_proj"),
        ("phi", "all"),
        ("phi", "q_proj,v_proj"),
        ("phi3", "all"),
        ("phi3", "qkv_proj,down_proj"),
        ("gemma3", "all"),
    ],
)
def test_peft_loads_what_is_exported(request, tmp_path, family, targets):
    ours = make_model(request, tmp_path, family)
    folder = pmc_jax.export(ours, tmp_path / "untouched")
    plan = lora.plan(ours.family, ours.model, 3, 12.0, targets)
    rng = np.random.default_rng(0)
    fresh = lora.create(ours.model, plan, 0, mesh_of(ours.params))
    adapters = {
        path: {side: rng.normal(size=x.shape).astype(np.float32) / 8 for side, x in pair.items()}
        for path, pair in fresh.items()
    }
    merged = ours.replace(params=lora.merge(ours.model, plan, ours.params, adapters), adapters=(plan, adapters))
    out = pmc_jax.export(merged, tmp_path / "out")
    tokens = rng.integers(5, ours.config.vocab_size, (2, 17))
    theirs = peft.PeftModel.from_pretrained(load_torch(folder), out / "adapter").eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(np.asarray(pmc_jax.logits(merged, tokens)), wanted, atol=1e-4)
    assert np.abs(wanted - np.asarray(pmc_jax.logits(ours, tokens))).max() > 0.1
    np.testing.assert_allclose(np.asarray(pmc_jax.logits(pmc_jax.load(str(out)), tokens)), wanted, atol=1e-4)
