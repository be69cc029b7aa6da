"""Greedy answers to many questions.

The true answers are read first, all at once: a model that has learnt them says them, or begins with them.

A token that is the likeliest one after all before it is what greedy decoding says there. So one scoring pass
(likelihood.py) finds how far each answer is the true one, and only where the model leaves it the rest is decoded. The
answers are those of plain decoding; as between batches of different sizes, two tokens that are equally likely but for
rounding may change places.
"""

import numpy as np

from pmc_jax.data.packing import FORGET, Row, round_up
from pmc_jax.evaluate.likelihood import tracked_scores
from pmc_jax.sampling.batches import cut
from pmc_jax.sampling.prompts import PROMPT_MULTIPLE
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track


def greedy_answers(
    sampler: Sampler, questions: list[str], guesses: list[str], progress: str, show: bool = True
) -> list[str]:
    """The model's greedy answers.

    Args:
        sampler: greedy, one sample.
        questions: what is asked.
        guesses: an answer to each question that the model may well give, such as the true one; a wrong one costs a
            little time and changes nothing.
        progress: begins the progress lines.
        show: whether progress is shown.

    Returns:
        A text for each question.
    """
    text, longest = sampler.text, sampler.sampling.max_new_tokens
    prompts = [text.prompt(q) for q in questions]
    answers = agreed(sampler, prompts, [text.answer(g)[:longest] for g in guesses], progress, show)
    unfinished = [i for i, a in enumerate(answers) if len(a) < longest and not set(a) & set(text.end_tokens)]
    # What is kept of a guess has room beside the longest prompt: so that the programs are the same whatever was agreed
    # to.
    width = round_up(max(map(len, prompts), default=0), PROMPT_MULTIPLE)
    kept = {i: answers[i][: width - len(prompts[i])] for i in unfinished}
    with track(progress, len(unfinished), show=show) as advance:
        smaller = sampler.with_capacity(capacity(len(unfinished), len(questions)))
        continued = smaller.tokens_after(
            [prompts[i] + kept[i] for i in unfinished], [questions[i] for i in unfinished], advance, multiple=width
        )
    for i, (tokens,) in zip(unfinished, continued):
        answers[i] = (kept[i] + tokens)[:longest]
    return [text.read(cut(tokens, text.end_tokens)) for tokens in answers]


def capacity(unfinished: int, questions: int) -> int:
    """The size of batches to compile for: a quarter of the questions, half or all.

    Evaluations of about as many rows then share their programs.
    """
    return next(size for size in (questions // 4, questions // 2, questions) if size >= unfinished)


def agreed(
    sampler: Sampler, prompts: list[list[int]], guesses: list[list[int]], progress: str, show: bool
) -> list[list[int]]:
    """The part of each guess that greedy decoding says too, from its first token on."""
    rows = [Row(prompt + guess, len(prompt), FORGET) for prompt, guess in zip(prompts, guesses)]
    scores = tracked_scores(sampler, rows, f"{progress}, guesses read", show)
    return [guess[: int(np.cumprod(s.hits).sum())] for guess, s in zip(guesses, scores)]
