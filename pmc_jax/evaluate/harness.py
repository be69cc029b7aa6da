"""The model behind the interface of lm-evaluation-harness (Gao et al., github.com/EleutherAI/lm-evaluation-harness).

The harness has the tasks and the scores. It asks for three things: how likely a continuation is, how likely a whole
text is, and what the model writes. The functions here answer them, and need no harness.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.prompts import Text
from pmc_jax.errors import UserError, first_line
from pmc_jax.evaluate.likelihood import tracked_scores
from pmc_jax.evaluate.raw_text import raw_tokens
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track

WINDOW = 2048  # tokens of a text that the model looks at at once
LONGEST = 256  # tokens of what it writes, where a task does not say


def require_harness(tasks: str) -> Any:
    """The package lm_eval. UserError where it is not installed."""
    try:
        import lm_eval
        import lm_eval.api.model
    except ImportError as error:
        raise UserError(
            f"evaluate.harness={tasks!r}: lm-evaluation-harness cannot be imported ({first_line(error)}); install it "
            "with pip install 'pmc-jax[harness]', or leave evaluate.harness out"
        ) from None
    return lm_eval


def before_all(text: Text) -> int:
    """The token that stands before a text without a context: the tokenizer's begin, or else its end."""
    begin = text.tokenizer.bos_token_id
    return begin if begin is not None else text.end_token


def pair_row(text: Text, context: str, continuation: str) -> Row:
    """A row whose labels are a continuation's tokens, as the harness splits them.

    The two are tokenised together. White space at the end of the context belongs to the continuation. Of a row that is
    longer than WINDOW, the end is kept.
    """
    if not context:
        ids = list(text.tokenizer(continuation, add_special_tokens=False)["input_ids"])
        row = Row(ids, 1, FORGET) if ids and ids[0] == before_all(text) else Row([before_all(text), *ids], 1, FORGET)
    else:
        kept = context.rstrip()
        whole, before = raw_tokens(text, context + continuation), raw_tokens(text, kept) if kept else []
        row = Row(whole, min(max(1, len(before)), len(whole)), FORGET)
    over = max(0, min(len(row.tokens) - WINDOW - 1, row.start - 1))
    return Row(row.tokens[over:], row.start - over, FORGET)


def log_likelihoods(sampler: Sampler, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """For each (context, continuation): log p of the continuation, nats, and whether greedy decoding would say it."""
    scores = tracked_scores(sampler, [pair_row(sampler.text, *pair) for pair in pairs], "harness, likelihoods")
    return [(float(np.sum(s.log_probs, dtype=np.float64)), bool(np.all(s.hits == 1))) for s in scores]


def windows(tokens: list[int], first: int, window: int = WINDOW) -> list[Row]:
    """Rows that predict each token of a text once, with as much before it as a window holds.

    Args:
        tokens: of the text.
        first: the token that stands before all.
        window: tokens that the model looks at at once.
    """
    rows = [Row([first, *tokens[:window]], 1, FORGET)]
    for start in range(window, len(tokens), window):
        end = min(start + window, len(tokens))
        ids = tokens[end - window - 1 : end]
        rows.append(Row(ids, len(ids) - (end - start), FORGET))
    return rows


def rolling_log_likelihoods(sampler: Sampler, texts: Sequence[str]) -> list[float]:
    """log p of each whole text, nats, each by itself (`windows`)."""
    first = before_all(sampler.text)
    own = [list(sampler.text.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    rows = [windows(tokens, first) for tokens in own]
    scores = iter(tracked_scores(sampler, [row for each in rows for row in each], "harness, whole texts"))
    return [float(sum(np.sum(next(scores).log_probs, dtype=np.float64) for _ in each)) for each in rows]


def generated(sampler: Sampler, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What the model writes after each context, up to the first of the texts in "until".

    Args:
        sampler: of the model.
        requests: (context, options): "until", a text or several; "max_gen_toks"; and where "do_sample" is set,
            "temperature", "top_p" and "top_k". Without it the model is greedy.
    """
    texts: list[str] = [""] * len(requests)
    groups: dict[tuple, list[int]] = {}
    for number, (_, options) in enumerate(requests):
        groups.setdefault(sampling_of(options), []).append(number)
    for (longest, temperature, top_p, top_k), numbers in groups.items():
        changes = dict(num_samples=1, max_new_tokens=longest, temperature=temperature, top_p=top_p, top_k=top_k)
        contexts = [requests[number][0] for number in numbers]
        prompts = [raw_tokens(sampler.text, context) or [before_all(sampler.text)] for context in contexts]
        with track("harness, texts", len(prompts)) as advance:
            tokens = sampler.with_sampling(**changes).tokens_after(prompts, contexts, advance)
        for number, (own,) in zip(numbers, tokens):
            texts[number] = until(written(sampler.text, own), requests[number][1].get("until"))
    return texts


def sampling_of(options: dict[str, Any]) -> tuple[int, float, float, int]:
    """(longest answer, temperature, top_p, top_k) of the options of a request; temperature 0 is greedy."""
    longest = int(options.get("max_gen_toks") or options.get("max_new_tokens") or LONGEST)
    if not options.get("do_sample"):
        return longest, 0.0, 1.0, 0
    chosen = {"temperature": 1.0, "top_p": 1.0, "top_k": 50} | {k: v for k, v in options.items() if v is not None}
    return longest, float(chosen["temperature"]), float(chosen["top_p"]), int(chosen["top_k"])


def written(text: Text, tokens: list[int]) -> str:
    """The text of generated tokens, without special ones; white space stays."""
    return text.tokenizer.decode(tokens, skip_special_tokens=True)


def until(text: str, ends: str | list[str] | None) -> str:
    """The text before the first of some ends."""
    for end in [ends] if isinstance(ends, str) else ends or []:
        text = text.split(end)[0] if end else text
    return text


def harness_model(lm_eval: Any, sampler: Sampler, name: str) -> Any:
    """An `lm_eval.api.model.LM` that answers with a sampler's model. name: what the harness calls the tokenizer."""

    class HarnessModel(lm_eval.api.model.LM):
        """Requests in, answers in their order out."""

        tokenizer_name = name

        def loglikelihood(self, requests, **_):
            return ask(log_likelihoods, requests)

        def loglikelihood_rolling(self, requests, **_):
            return ask(lambda sampler, texts: rolling_log_likelihoods(sampler, [text for (text,) in texts]), requests)

        def generate_until(self, requests, **_):
            return ask(generated, requests)

    def ask(answer: Callable[[Sampler, list[Any]], list[Any]], requests: list[Any]) -> list[Any]:
        return answer(sampler, [request.args for request in requests]) if requests else []

    return HarnessModel()
