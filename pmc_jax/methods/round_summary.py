"""What a round of PMC tells: one dict for each sampled question, and one line about the round."""

from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.prompts import Text
from pmc_jax.methods.asked import Asked
from pmc_jax.methods.memory import Memory, share_solved
from pmc_jax.methods.prefixes import Split
from pmc_jax.sampling.prompts import accepted_length


class Drawn(NamedTuple):
    """The samples of a round.

    Attributes:
        questions: indices of the sampled questions, int [Q].
        tokens: [question][sample] -> token ids.
        answers: [question][sample] -> text.
        scores_QS: how much of the reference each sample still holds, float64.
        chosen_Q: which sample was picked, int.
    """

    questions: np.ndarray
    tokens: list[list[list[int]]]
    answers: list[list[str]]
    scores_QS: np.ndarray
    chosen_Q: np.ndarray

    def picks(self, text: Text, splits: list[Split]) -> tuple[np.ndarray, list[str], list[float], list[float]]:
        """Questions, picked answers with what was given of them, their scores, and the mean length of the question's
        samples in tokens.
        """
        picked = [samples[c] for samples, c in zip(self.tokens, self.chosen_Q)]
        answers = [text.read(splits[q].given + tokens) for q, tokens in zip(self.questions, picked)]
        scores = [float(row[c]) for row, c in zip(self.scores_QS, self.chosen_Q)]
        return self.questions, answers, scores, [float(np.mean(lengths)) for lengths in self.lengths()]

    def lengths(self) -> list[list[int]]:
        """Tokens of each sample."""
        return [[len(t) for t in samples] for samples in self.tokens]


def describe_samples(drawn: Drawn, texts: list[str], asked: Asked, memory: Memory) -> list[dict[str, Any]]:
    """What samples/round_N.jsonl says, one dict a sampled question.

    Args:
        drawn: the samples.
        texts: all questions, without their prefixed rows.
        asked: in this epoch.
        memory: after the round.

    Returns:
        JSON-ready dicts. original_tokens: how many tokens of a sample are those of the original answer (as far as
        that is a draft). prefix: what was given of it, where the question is a prefixed row.
    """
    drafts_QA, described = asked.prompts.drafts_QA, []
    for i, (q, lengths) in enumerate(zip(drawn.questions, drawn.lengths())):
        described.append(
            {
                "question": texts[q % len(texts)],
                **({} if asked.prefixes[q] is None else {"prefix": asked.prefixes[q]}),
                "samples": drawn.answers[i],
                "scores": drawn.scores_QS[i].tolist(),
                "chosen": int(drawn.chosen_Q[i]),
                "tokens": lengths,
                "original_tokens": [accepted_length(drafts_QA[q], t) for t in drawn.tokens[i]],
                "stored_score": memory.scores[q],
            }
        )
    return described


def summarise(epoch: int, whole: int, memory: Memory, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """One line about a round, without its losses.

    Args:
        epoch: of the round.
        whole: samples of each question that were drawn to their end whatever they held.
        memory: after the round.
        seen: what was sampled (`describe_samples`).

    Returns:
        A JSON-ready dict. reward = 1 - score, over the `whole` samples; None when there are none. Scores and rewards
        are those of the questions; prefix_score is the mean score of the prefixed rows' picks, where there are any.
    """
    questions, plain = len(memory.references), [s for s in seen if "prefix" not in s]
    rewards = 1 - np.array([s["scores"][:whole] for s in plain]) if plain and whole else None
    scores, prefixed = memory.scores[:questions], [s for s in memory.scores[questions:] if s is not None]
    return {
        "epoch": epoch,
        "sampled_questions": len(seen),
        "sampled_tokens": sum(sum(s["tokens"]) for s in seen),
        "original_tokens": sum(sum(s["original_tokens"]) for s in seen),
        "reward_mean": None if rewards is None else float(rewards.mean()),
        "reward_std": None if rewards is None else float(rewards.std()),
        "stored_score": float(np.mean([s for s in scores if s is not None] or [1.0])),
        "solved": share_solved(memory),
        **({"prefix_score": float(np.mean(prefixed))} if prefixed else {}),
    }
