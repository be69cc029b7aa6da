"""Answers found with guesses are the answers found without."""

import numpy as np
import pytest

from pmc_jax.evaluate.greedy import agreed, capacity, greedy_answers
from pmc_jax.sampling.generate import greedy_sampler


@pytest.fixture(params=["tiny_checkpoint", "tiny_phi", "fresh_checkpoint"])
def sampler(request, small):
    checkpoint = request.getfixturevalue(request.param)
    return greedy_sampler(checkpoint, small()).with_sampling(max_new_tokens=40)


def test_guesses_of_any_kind_change_nothing(sampler, splits):
    rows = splits["full"]
    questions, truths = [r["question"] for r in rows], [r["answer"] for r in rows]
    said = [a for (a,) in sampler.answers(questions)]
    for name, guesses in {
        "true": truths,
        "what is said": said,
        "others'": np.roll(truths, 1).tolist(),
        "begun": [a[: len(a) // 2] for a in said],
        "gone on with": [f"{a} And more." for a in said],
        "none": [""] * len(rows),
    }.items():
        assert greedy_answers(sampler, questions, guesses, name, show=False) == said, name


def test_programs_do_not_depend_on_what_was_agreed_to(tiny_checkpoint, small, splits, monkeypatch):
    """Prompts are as wide, and batches as large, for guesses that are right for a few tokens and for none."""
    sampler = greedy_sampler(tiny_checkpoint, small())
    questions, shapes, spied = [r["question"] for r in splits["full"]], set(), type(sampler).tokens
    said = [a for (a,) in sampler.answers(questions)]
    monkeypatch.setattr(
        type(sampler),
        "tokens",
        lambda self, p, *a, **h: shapes.add((p.tokens_QP.shape[1], self.engine.capacity)) or spied(self, p, *a, **h),
    )
    for guesses in ([""] * len(said), [a[:12] for a in said], [a[:-1] for a in said]):
        assert greedy_answers(sampler, questions, guesses, "answers", show=False) == said
    assert len(shapes) == 1


def test_no_questions(sampler):
    assert greedy_answers(sampler, [], [], "answers") == []


def test_what_is_agreed_to_ends_where_the_answer_leaves_the_guess(tiny_checkpoint, splits, small):
    sampler = greedy_sampler(tiny_checkpoint, small())
    questions = [r["question"] for r in splits["full"][:6]]
    answers = sampler.tokens_after([sampler.text.prompt(q) for q in questions], questions)
    prompts = [sampler.text.prompt(q) for q in questions]
    rng = np.random.default_rng(0)
    for _ in range(5):
        ends = [int(rng.integers(0, len(a))) for (a,) in answers]
        wrong = [[*a[:i], a[i] + 1, *a[i + 1 :]] for (a,), i in zip(answers, ends)]
        heads = agreed(sampler, prompts, wrong, "x", show=False)
        assert heads == [a[:i] for (a,), i in zip(answers, ends)]
    assert agreed(sampler, prompts, [a for (a,) in answers], "x", show=False) == [a for (a,) in answers]


def test_batches_are_compiled_for_a_quarter_a_half_or_all():
    assert [capacity(left, 40) for left in (0, 9, 10, 11, 20, 21, 40)] == [10, 10, 10, 20, 20, 40, 40]
    assert capacity(1, 3) == 1 and capacity(1, 1) == 1 and capacity(0, 2) == 0
