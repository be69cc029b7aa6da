"""Per-token losses and gradients of packed rows against torch, which sees one example a forward pass, unpacked."""

import dataclasses

import jax
import numpy as np
import pytest

from pmc_jax.config import default
from pmc_jax.data.packing import FORGET, GROUPS, NO_LABEL, RETAIN, Row
from pmc_jax.data.prompts import training_row
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.training import forward
from pmc_jax.training.update import put_batch

pytest.importorskip("torch")

import golden
import golden_torch
import reference
import torch
from reference import SHARED, every_checkpoint, load_ours, load_torch, needs_shared

pytestmark = pytest.mark.parity

DRAWN = [
    ("llama", 0),
    ("llama", 3),
    ("llama", 5),
    ("phi", 0),
    ("phi", 1),
]  # default, llama3 and linear RoPE; tied, untied; biases; qk-norm


def save(folder, family: str, seed: int):
    config = reference.draw_llama(seed) if family == "llama" else reference.draw_phi(seed)
    return reference.save_drawn(folder, config, seed), config.vocab_size


def drawn_rows(vocab_size: int, count: int = 9) -> list[Row]:
    """Examples of 6 to 22 tokens that share their first two, of both groups."""
    rng = np.random.default_rng(5)
    shared = rng.integers(2, vocab_size, 2).tolist()
    rows = []
    for i in range(count):
        prompt, answer = int(rng.integers(4, 11)), int(rng.integers(2, 12))
        rows.append(Row(shared + rng.integers(2, vocab_size, prompt + answer - 2).tolist(), prompt, GROUPS[i % 2]))
    return rows


def real_rows(checkpoint, count: int = 6) -> list[Row]:
    """Forget questions with answers the model does not expect, and retain rows that it knows by heart: large and tiny
    losses.
    """
    text = greedy_sampler(checkpoint, default()).text
    forget, retain = reference.read_rows("forget10_perturbed")[:count], reference.read_rows("retain90")[:count]
    rows = [training_row(text, r["question"], r["perturbed_answer"][0], 200, group=FORGET) for r in forget]
    return rows + [training_row(text, r["question"], r["answer"], 200, group=RETAIN) for r in retain]


def torch_token_losses(model, rows: list[Row]) -> dict[tuple[int, ...], float]:
    """{tokens up to and with the label: -log p of the label}, by torch's cross entropy."""
    found = {}
    with torch.no_grad():
        for row in rows:
            logits = model(torch.tensor([row.tokens])).logits[0]
            values = torch.nn.functional.cross_entropy(
                logits[row.start - 1 : -1], torch.tensor(row.tokens[row.start :]), reduction="none"
            )
            found |= {tuple(row.tokens[: row.start + i + 1]): value for i, value in enumerate(values.tolist())}
    return found


def packed_token_losses(
    checkpoint, rows: list[Row], length: int, packed_rows: int, labels: int
) -> dict[tuple[int, ...], float]:
    """The same from a packed batch: a label's context is the shared prefix and its own segment, up to where it is
    predicted.
    """
    batch = golden.package_batch(rows, length, packed_rows, labels)
    assert (np.max(batch.segments_MRT, axis=-1) > 2).any() and batch.used == 1  # something is packed
    on_device = put_batch(batch, golden.package_mesh())
    terms = jax.jit(forward.compute_terms, static_argnums=0)(checkpoint.model, checkpoint.params, on_device, 0)
    losses, (tokens, segments) = {}, (x[0].ravel() for x in (batch.tokens_MRT, batch.segments_MRT))
    for a in np.flatnonzero(batch.group_MSA[0, 0] != NO_LABEL):
        index = batch.index_MSA[0, 0, a]
        seen = (np.arange(segments.size) <= index) & (segments == segments[index])
        context = *batch.prefix_P.tolist(), *tokens[seen].tolist()
        losses[(*context, int(batch.labels_MSA[0, 0, a]))] = -float(terms.log_probs_SA[0, a])
    return losses


def assert_same_losses(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys()
    np.testing.assert_allclose([ours[k] for k in expected], list(expected.values()), rtol=1e-5, atol=1e-5)


def assert_same_gradients(gradients: dict[str, np.ndarray], model) -> None:
    """Per tensor, the norm of the difference is within 1e-4 of the gradient's norm."""
    expected = {n: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for n, p in model.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name in [n for n, g in expected.items() if not g.any()]:  # what the loss does not depend on
        assert not gradients[name].any() and expected.pop(name) is not None, name
    off = {n: np.linalg.norm(gradients[n] - g) / np.linalg.norm(g) for n, g in expected.items()}
    worst = max(off, key=off.get)
    print(f"largest relative difference {off[worst]:.1e} of {len(off)} tensors: {worst}")
    assert off[worst] < 1e-4, (worst, off[worst])


@pytest.mark.parametrize(("family", "seed"), [("llama", 1), ("phi", 1)])
def test_losses_of_packed_rows_are_torchs_per_token(tmp_path, family, seed):
    folder, vocab_size = save(tmp_path, family, seed)
    rows = drawn_rows(vocab_size)
    assert_same_losses(
        packed_token_losses(load_ours(folder), rows, 48, 4, 96), torch_token_losses(load_torch(folder), rows)
    )


@needs_shared
@every_checkpoint
def test_losses_of_a_shared_checkpoint_are_torchs_per_token(name):
    folder = SHARED / "checkpoints" / name
    ours = load_ours(folder)
    rows = real_rows(ours)
    expected = torch_token_losses(load_torch(folder), rows)
    assert_same_losses(packed_token_losses(ours, rows, 256, 6, 768), expected)
    assert min(expected.values()) < 0.01 and max(expected.values()) > 3  # both ends of the scale


def test_losses_in_chunks_are_torchs_per_token(tmp_path):
    """A vocabulary too large to unembed all labels at once."""
    folder, vocab_size = save(tmp_path, "phi", 1)
    ours = load_ours(folder)
    chunked = ours.replace(model=ours.model.clone(logits_at_once=7 * vocab_size))
    rows = drawn_rows(vocab_size)
    assert_same_losses(packed_token_losses(chunked, rows, 48, 4, 96), torch_token_losses(load_torch(folder), rows))


@pytest.mark.parametrize(("family", "seed"), DRAWN)
def test_gradients_of_packed_rows_are_autograds(tmp_path, family, seed):
    """Both groups, a retain weight that is not 1; with several micro-batches for every other draw, whose sizes
    differ.
    """
    folder, vocab_size = save(tmp_path, family, seed)
    rows, model = drawn_rows(vocab_size), load_torch(folder)
    loss = golden_torch.torch_loss(model, rows, 1.7)
    loss.backward()
    batch = golden.package_batch(rows, 24, 2, 32, several=True) if seed % 2 else golden.package_batch(rows, 48, 4, 96)
    metrics, gradients = golden.package_gradients(load_ours(folder), batch, (("retain_weight", 1.7),))
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)


def test_gradients_of_one_group_alone_are_autograds(tmp_path):
    """Only forget or only retain rows: the other group's mean is 0, not NaN."""
    folder, vocab_size = save(tmp_path, "llama", 2)
    for group in (FORGET, RETAIN):
        rows, model = [r for r in drawn_rows(vocab_size) if r.group == group], load_torch(folder)
        golden_torch.torch_loss(model, rows, 0.6).backward()
        batch = golden.package_batch(rows, 48, 2, 64)
        metrics, gradients = golden.package_gradients(load_ours(folder), batch, (("retain_weight", 0.6),))
        assert float(metrics["retain_loss" if group == FORGET else "forget_loss"]) == 0
        assert_same_gradients(gradients, model)


@needs_shared
@every_checkpoint
@pytest.mark.parametrize(("parts", "remat"), [(1, False), (3, True)])
def test_gradients_of_a_shared_checkpoint_are_autograds(name, parts, remat):
    """On TOFU rows; split into micro-batches, or with blocks recomputed, they stay the same."""
    folder = SHARED / "checkpoints" / name
    ours = load_ours(folder)
    ours = ours.replace(model=dataclasses.replace(ours.model, remat=remat))
    rows, model = real_rows(ours), load_torch(folder)
    golden_torch.torch_loss(model, rows, 1.25).backward()
    metrics, gradients = golden.package_gradients(
        ours, golden.package_batch(rows, 128, 12 // parts, 768 // parts, several=parts > 1), golden.HYPER
    )
    assert_same_gradients(gradients, model)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert float(metrics["grad_norm"]) == pytest.approx(norm.item(), rel=1e-4)
