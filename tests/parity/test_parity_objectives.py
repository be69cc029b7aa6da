"""Gradients of rival objectives on packed rows against torch's autograd, one example a forward pass."""

import pytest

from pmc_jax.data.packing import FORGET, RETAIN, Row
from pmc_jax.training.label_values import with_references

pytest.importorskip("torch")

import golden
import torch
from reference import load_ours, load_torch
from test_parity_losses import assert_same_gradients, drawn_rows, save

pytestmark = pytest.mark.parity

RETAIN_WEIGHT = 1.7


def torch_nll(model, row: Row):
    """Sum of -log p over the answer tokens."""
    logits = model(torch.tensor([row.tokens])).logits[0]
    labels = torch.tensor(row.tokens[row.start :])
    return torch.nn.functional.cross_entropy(logits[row.start - 1 : -1], labels, reduction="sum")


def torch_cross_entropy(model, rows: list[Row], group: int):
    """Mean of -log p over all answer tokens of a group."""
    members = [r for r in rows if r.group == group]
    return sum(torch_nll(model, r) for r in members) / sum(len(r.tokens) - r.start for r in members)


def torch_npo(model, start, rows: list[Row]):
    """NPO with beta 0.1; `start` is the frozen start model."""
    forget = [r for r in rows if r.group == FORGET]
    with torch.no_grad():
        references = [torch_nll(start, r) for r in forget]
    ratios = torch.stack([torch_nll(model, r) - reference for r, reference in zip(forget, references)])
    return -2 / 0.1 * torch.nn.functional.logsigmoid(0.1 * ratios).mean()


@pytest.mark.parametrize("family", ["llama", "phi"])
@pytest.mark.parametrize("several", [False, True], ids=["one micro-batch", "several"])
def test_gradient_difference_is_autograds(tmp_path, family, several):
    folder, vocab_size = save(tmp_path, family, 1)
    rows, model = drawn_rows(vocab_size), load_torch(folder)
    loss = RETAIN_WEIGHT * torch_cross_entropy(model, rows, RETAIN) - torch_cross_entropy(model, rows, FORGET)
    loss.backward()
    batch = golden.package_batch(rows, *((24, 2, 32) if several else (48, 4, 96)), several=several)
    metrics, gradients = golden.package_gradients(load_ours(folder), batch, RETAIN_WEIGHT, "gradient_difference")
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)


@pytest.mark.parametrize("several", [False, True], ids=["one micro-batch", "several"])
def test_npo_is_autograds(tmp_path, several):
    """The start model is another one: at the start itself all log-ratios would be 0."""
    folder, vocab_size = save(tmp_path / "now", "llama", 3)
    start_folder, _ = save(tmp_path / "start", "llama", 3)
    model, start, ours = load_torch(folder), load_torch(start_folder), load_ours(start_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    model.save_pretrained(folder)
    rows = with_references(ours.model, ours.params, drawn_rows(vocab_size))
    for row in rows:
        assert row.reference == pytest.approx(torch_nll(start, row).item(), rel=1e-5)
    loss = torch_npo(model, start, rows) + RETAIN_WEIGHT * torch_cross_entropy(model, rows, RETAIN)
    loss.backward()
    batch = golden.package_batch(rows, *((24, 2, 32) if several else (48, 4, 96)), several=several)
    metrics, gradients = golden.package_gradients(load_ours(folder), batch, RETAIN_WEIGHT, "npo")
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(gradients, model)
