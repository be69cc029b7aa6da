"""Attention in one kernel: the same formula as attention in products, and what happens where there is no such kernel.

No GPU is needed: JAX's own implementation of the same function stands in for cuDNN's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LLAMA

from pmc_jax.data import packing
from pmc_jax.data.packing import FORGET, RETAIN, Row
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import CPU, GPU
from pmc_jax.models import find_family, fused_attention, weights
from pmc_jax.models.attention import attend
from pmc_jax.models.config import LayerKind
from pmc_jax.models.fused_attention import attend_fused, suits, usable_kind
from pmc_jax.training import forward


@pytest.fixture(autouse=True)
def nothing_tried():
    """What one test tried is not what the next one is told."""
    fused_attention.why_not.cache_clear()


@pytest.fixture
def without_cudnn(monkeypatch):
    """JAX's own implementation in its place."""
    monkeypatch.setattr(fused_attention, "IMPLEMENTATION", "xla")


def make_model(raw=LLAMA):
    family = find_family(raw)
    return family, family.make_model(raw, remat=True)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_as_attention_in_products(without_cudnn, seed):
    """Drawn parts: rows that share a prefix, an odd number of slots, a scale, rows that may look nowhere."""
    rng = np.random.default_rng(seed)
    B, T, K, H = 2 * rng.integers(1, 3), rng.integers(1, 6), rng.integers(1, 4), 8 * rng.integers(1, 3)
    N, groups = K * rng.integers(1, 4), (B // 2, B)
    lengths = rng.integers(1, 8, 2)

    def drawn(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    q_BTNH = drawn(B, T, N, H)
    parts = [(drawn(G, K, H, S), drawn(G, K, S, H)) for G, S in zip(groups, lengths)]
    mask_BTS = rng.random((B, T, lengths.sum())) < 0.6
    mask_BTS[0, 0] = False
    scale = [None, 0.3][seed % 2]
    looks = mask_BTS.any(-1)[:, :, None, None]

    def loss(attention, q_BTNH, parts):
        out = attention(q_BTNH, parts, jnp.asarray(mask_BTS), scale)
        return jnp.sum(jnp.where(looks, jnp.sin(out), 0.0)), out

    (_, one), gradients = jax.value_and_grad(loss, (1, 2), has_aux=True)(attend_fused, q_BTNH, parts)
    (_, other), expected = jax.value_and_grad(loss, (1, 2), has_aux=True)(attend, q_BTNH, parts)
    assert np.isfinite(one).all()
    np.testing.assert_allclose(np.where(looks, one, 0), np.where(looks, other, 0), rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), gradients, expected)


def test_a_whole_model_on_packed_rows(without_cudnn):
    """Log-probabilities of the labels and their gradient in bfloat16, both ways; the parameters are the same."""
    family, model = make_model()
    params = weights.init_params(family, model, meshes.make_mesh(1, 1, jax.devices()[:1]), 0, "bfloat16")
    rng = np.random.default_rng(0)
    rows = [
        Row([1, 2, 3, *map(int, rng.integers(4, 60, rng.integers(8, 30)))], int(rng.integers(4, 7)), group)
        for group in (FORGET, RETAIN) * 4
    ]
    packed = packing.pack(rows, packing.Packing(prefix=3, length=32, rows=8, labels=256, examples=8), 1)

    def run(model):
        def loss(params):
            terms = forward.compute_terms(model, params, packed, 0)
            return jnp.sum(terms.nll_SE)

        return jax.value_and_grad(loss)(params)

    plain, expected = run(model)
    fused, gradients = run(model.suited(CPU._replace(fused_attention=True)))
    assert fused != plain, "another order of sums, so the kernel was used"
    np.testing.assert_allclose(float(fused), float(plain), rtol=5e-3)
    for x, y in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected)):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.linalg.norm(x - y) <= 0.05 * np.linalg.norm(y) + 1e-3


@pytest.mark.parametrize(
    "kind, width, dtype, expected",
    [
        (LayerKind(None), 64, "bfloat16", True),
        (LayerKind(None, window=8, scale=0.1), 128, "float16", True),
        (LayerKind(None), 64, "float32", False),
        (LayerKind(None), 256, "bfloat16", False),
        (LayerKind(None), 60, "bfloat16", False),
        (LayerKind(None, softcap=50.0), 64, "bfloat16", False),
    ],
)
def test_what_cudnn_has_a_kernel_for(kind, width, dtype, expected):
    assert suits(kind, width, jnp.dtype(dtype)) is expected


def on_gpu(monkeypatch):
    monkeypatch.setattr(fused_attention, "device_kind", lambda mesh: GPU)


def test_it_is_tried_on_the_mesh_first(without_cudnn, monkeypatch, caplog):
    on_gpu(monkeypatch)
    assert usable_kind(meshes.make_mesh(), make_model()[1].config) == GPU and not caplog.records
    usable_kind(meshes.make_mesh(), make_model()[1].config)
    assert fused_attention.why_not.cache_info().hits == 1, "a process tries it once"


def test_where_cudnn_fails_attention_is_in_products(monkeypatch, caplog):
    """A machine without cuDNN, here this one: one line says what it means, and nothing stops."""
    on_gpu(monkeypatch)
    assert usable_kind(meshes.make_mesh(), make_model()[1].config) == GPU._replace(fused_attention=False)
    (record,) = caplog.records
    assert "takes more memory" in record.message and "\n" not in record.message


def test_a_kernel_with_wrong_results_is_not_used(without_cudnn, monkeypatch, caplog):
    on_gpu(monkeypatch)
    monkeypatch.setattr(fused_attention, "attend_fused", lambda *args: 1.1 * attend(*args))
    assert not usable_kind(meshes.make_mesh(), make_model()[1].config).fused_attention
    assert "away" in caplog.text


def test_a_cpu_tries_nothing(monkeypatch):
    monkeypatch.setattr(fused_attention, "why_not", pytest.fail)
    assert usable_kind(meshes.make_mesh(), make_model()[1].config) == CPU


def test_several_devices_try_it_together(python):
    """Rows lie over `data` and heads over `model`, as in an update."""
    program = f"""
import jax
jax.config.update("jax_num_cpu_devices", 4)
from pmc_jax.distributed import meshes
from pmc_jax.models import find_family, fused_attention
fused_attention.IMPLEMENTATION = "xla"
config = find_family({LLAMA}).make_model({LLAMA}, remat=True).config
for shape in ((2, 2), (4, 1)):
    print(repr(fused_attention.why_not(meshes.make_mesh(*shape), config)))
"""
    done = python(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["''", "''"]
