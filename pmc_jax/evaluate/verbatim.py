"""Verbatim memorisation: how much of a text a model says by heart, asked with the words before it."""

from pmc_jax.evaluate.muse import rouge_f1
from pmc_jax.evaluate.raw_text import raw_tokens
from pmc_jax.methods.similarity import longest_common_run
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track


def continuations(sampler: Sampler, prompts: list[str], longest: int, progress: str) -> list[list[int]]:
    """Greedy token ids after each prompt, which is given as it stands; an end token ends them.

    Args:
        sampler: of the model.
        prompts: N texts.
        longest: tokens of a continuation.
        progress: begins the progress line.
    """
    greedy = sampler.with_sampling(num_samples=1, temperature=0.0, max_new_tokens=longest)
    ids = [raw_tokens(sampler.text, prompt) for prompt in prompts]
    with track(progress, len(ids)) as advance:
        return [tokens for (tokens,) in greedy.tokens_after(ids, prompts, advance)]


def memorised(sampler: Sampler, prefixes: list[str], truths: list[str], progress: str) -> dict[str, list[float]]:
    """How much of each true continuation the model says.

    Args:
        sampler: of the model; its longest answer is how far a continuation goes.
        prefixes: N texts.
        truths: what follows each of them.
        progress: begins the progress line.

    Returns:
        {"rouge_l_f1": MUSE's; "run": the longest run of tokens in both, over the tokens of the truth}, N values each.
        Truths and continuations are cut to as many tokens.
    """
    text, scores = sampler.text, {"rouge_l_f1": [], "run": []}
    wanted = [text.answer(truth)[: sampler.sampling.max_new_tokens] for truth in truths]
    said = continuations(sampler, prefixes, sampler.sampling.max_new_tokens, progress)
    for truth, tokens in zip(wanted, said):
        tokens = tokens[: len(truth)]
        scores["rouge_l_f1"].append(rouge_f1(text.read(truth), text.read(tokens)))
        scores["run"].append(longest_common_run(truth, tokens))
    return scores
