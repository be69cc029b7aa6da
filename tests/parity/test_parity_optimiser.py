"""A run of updates against torch: AdamW, clipping, warm-up and decay of the rate, and which parameters weight decay
reaches.
"""

import numpy as np
import optax
import pytest

from pmc_jax.data.packing import GROUPS, Row
from pmc_jax.training.optimizer import make_optimizer
from pmc_jax.training.update import Recipe, create_state, put_batch, update

pytest.importorskip("torch")

import golden
import golden_torch
import reference
import torch
import transformers
from reference import load_ours, load_torch

pytestmark = pytest.mark.parity

STEPS = 6
RETAIN_WEIGHT = 1.25
HYPER = (("retain_weight", RETAIN_WEIGHT),)
PACKED = dict(length=64, packed_rows=3, labels=128)


def draw_config(family: str):
    """Tiny models in which every parameter has a real gradient: an unrotated key bias has none but rounding, and Adam
    would magnify that.
    """
    shape = dict(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    shape |= dict(max_position_embeddings=64, bos_token_id=None, eos_token_id=golden.END)
    rope = {"rope_type": "default", "rope_theta": 4.0}
    if family == "llama":
        return transformers.LlamaConfig(**shape, head_dim=8, attention_bias=True, mlp_bias=True, rope_parameters=rope)
    return transformers.PhiConfig(
        **shape, rope_parameters=rope | {"partial_rotary_factor": 1.0}, tie_word_embeddings=True
    )


def draw_batches() -> list[list[Row]]:
    """One batch of ten rows, both groups, for each update."""
    rng = np.random.default_rng(7)
    return [
        [Row(rng.integers(2, 40, 14).tolist(), int(rng.integers(3, 9)), GROUPS[i % 2]) for i in range(10)]
        for _ in range(STEPS)
    ]


def run_torch(model, recipe: Recipe, batches: list[list[Row]]) -> list[float]:
    """The published optimizer: two parameter groups, clipping, linear schedule with warm-up. Returns the gradient norms
    before clipping.
    """
    decayed = {n for n, p in model.named_parameters() if not (n.endswith("bias") or "norm" in n)}
    groups = [
        {"params": [p for n, p in model.named_parameters() if n in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in model.named_parameters() if n not in decayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.total_steps)
    norms = []
    for rows in batches:
        optimizer.zero_grad()
        golden_torch.torch_loss(model, rows, RETAIN_WEIGHT).backward()
        limit = recipe.grad_clip or float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item())
        optimizer.step()
        schedule.step()
    return norms


@pytest.mark.parametrize(
    ("family", "weight_decay", "warmup_steps", "total_steps", "grad_clip"),
    [("llama", 0.1, 2, 8, 1.0), ("phi", 0.1, 2, 8, 1.0), ("llama", 5.0, 0, STEPS, 0.0)],
    ids=["llama", "phi", "strong decay, no warm-up, no clipping"],
)
def test_updates_are_those_of_torch(tmp_path, family, weight_decay, warmup_steps, total_steps, grad_clip):
    recipe = Recipe(5e-3, weight_decay, warmup_steps, total_steps, grad_clip, "float32", hyper=HYPER)
    folder = reference.save_drawn(tmp_path, draw_config(family), 3)
    model, ours, batches = load_torch(folder), load_ours(folder), draw_batches()
    before = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    norms = run_torch(model, recipe, batches)
    assert not grad_clip or min(norms) > 1.5 * grad_clip  # clipping had something to do

    state = create_state(ours.params, recipe)
    for rows, norm in zip(batches, norms):
        state, metrics = update(
            ours.model, recipe, state, put_batch(golden.package_batch(rows, **PACKED), golden.package_mesh())
        )
        assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-3)
    assert int(state.step) == STEPS

    after = golden.source_tensors(ours, state.params)
    expected = {n: p.detach().numpy() for n, p in model.named_parameters()}
    assert after.keys() == expected.keys()
    for name, value in expected.items():
        moved = np.linalg.norm(value - before[name])
        assert moved > 1e-3 * np.linalg.norm(before[name]), name
        assert np.linalg.norm(after[name] - value) < 1e-3 * moved, name
        np.testing.assert_allclose(after[name], value, rtol=0, atol=recipe.learning_rate * 0.02, err_msg=name)


def test_first_update_of_a_warm_up_changes_nothing(tmp_path):
    """As in torch, whose schedule starts at rate 0."""
    ours = load_ours(reference.save_drawn(tmp_path, draw_config("llama"), 4))
    recipe = Recipe(5e-3, 0.1, 2, 8, 1.0, "float32", hyper=HYPER)
    batch = put_batch(golden.package_batch(draw_batches()[0], **PACKED), golden.package_mesh())
    state, _ = update(ours.model, recipe, create_state(ours.params, recipe), batch)
    before, after = golden.source_tensors(ours, ours.params), golden.source_tensors(ours, state.params)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_adafactor_is_that_of_transformers():
    """Matrices large enough to be factored and a vector, which is not decayed; drawn gradients."""
    recipe = Recipe(1e-2, 0.1, 2, 8, 0.0, "float32", optimizer="adafactor")
    rng = np.random.default_rng(5)
    shapes = {"kernel": (130, 160), "wide": (128, 300), "scale": (200,)}
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [
        {"params": [p], "weight_decay": 0.0 if name == "scale" else recipe.weight_decay} for name, p in tensors.items()
    ]
    theirs = transformers.Adafactor(groups, lr=recipe.learning_rate, scale_parameter=False, relative_step=False)
    rates = transformers.get_linear_schedule_with_warmup(theirs, recipe.warmup_steps, recipe.total_steps)
    tx, ours = make_optimizer(recipe), start
    state = tx.init(ours)
    for _ in range(STEPS):
        grads = {
            name: rng.normal(size=shape).astype(np.float32) * rng.uniform(0.1, 10) for name, shape in shapes.items()
        }
        for name, p in tensors.items():
            p.grad = torch.tensor(grads[name])
        theirs.step()
        rates.step()
        updates, state = tx.update(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
    for name, p in tensors.items():
        moved = np.linalg.norm(p.detach().numpy() - start[name])
        assert moved > 1e-3 * np.linalg.norm(start[name])
        assert np.linalg.norm(np.asarray(ours[name]) - p.detach().numpy()) < 1e-3 * moved, name
