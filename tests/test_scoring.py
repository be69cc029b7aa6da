"""Rewards in a run: what the sampler draws is read and scored, and pruning changes nothing that is kept."""

import numpy as np
import pytest

import pmc_jax
from pmc_jax.data.prompts import Template, make_text
from pmc_jax.methods.rewards import from_function
from pmc_jax.methods.scoring import Scorer, make_scorer, scores_across_processes

HALF = """
def halves(reference, answers):
    "Score: the share of the reference's first words, in order, that begin the answer."
    return [sum(r == a for r, a in zip(reference.split(), x.split())) / len(reference.split()) for x in answers]
"""


@pytest.mark.parametrize("name", ["content_recall", "longest_common_run"])
def test_pruning_changes_nothing_that_is_kept(tiny_checkpoint, splits, small, name):
    kept, tokens = {}, {}
    for prune in (True, False):
        rounds = []
        config = small({"pmc.reward": name, "pmc.prune_candidates": prune, "train.epochs": 2})
        unlearned, history = pmc_jax.unlearn(
            tiny_checkpoint,
            splits["forget20"],
            splits["retain80"],
            config,
            on_round=lambda summary, seen, updates, rounds=rounds: rounds.append(
                [(s["question"], s["stored_score"], s["samples"][s["chosen"]]) for s in seen]
            ),
        )
        kept[prune] = [sorted(r) for r in rounds], [(h["forget_loss"], h["retain_loss"]) for h in history]
        tokens[prune] = sum(h["sampled_tokens"] for h in history)
        assert history[-1]["stored_score"] < 1.0
    assert kept[True][1] == kept[False][1], "the same answers were trained on"
    assert [[r[:2] for r in rows] for rows in kept[True][0]] == [[r[:2] for r in rows] for rows in kept[False][0]]
    assert tokens[True] < tokens[False]


def test_a_run_with_a_function_of_the_users_own(tiny_checkpoint, splits, small, tmp_path, monkeypatch):
    (tmp_path / "halves_reward.py").write_text(HALF)
    monkeypatch.syspath_prepend(tmp_path)
    config, scores = small({"pmc.reward": "halves_reward:halves", "train.epochs": 1}), []
    references = pmc_jax.sample(
        tiny_checkpoint, [r["question"] for r in splits["forget20"]], temperature=0.0, max_new_tokens=64
    )
    unlearned, history = pmc_jax.unlearn(
        tiny_checkpoint,
        splits["forget20"],
        splits["retain80"],
        config,
        on_round=lambda summary, seen, updates: scores.extend(seen),
    )
    by_question = dict(zip((r["question"] for r in splits["forget20"]), references))
    for s in scores:
        wanted = pmc_jax.score(by_question[s["question"]], [s["samples"]], "halves_reward:halves")[0]
        assert s["scores"] == wanted.tolist()
    assert history[0]["reward_mean"] is not None and len(scores) == 8


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_token_ids_without_their_frame(tiny_checkpoint, style):
    text = make_text(tiny_checkpoint.tokenizer, Template(style=style), tiny_checkpoint.end_tokens)
    tokens = text.answer("Konya writes novels.")
    bare = text.read_tokens(tokens)
    assert text.tokenizer.decode(bare).strip() == "Konya writes novels."
    for n in range(len(tokens) + 1):
        part = text.read_tokens(tokens[:n])
        assert part == bare[: len(part)] and len(part) >= n - (len(tokens) - len(bare))
    scorer = make_scorer("longest_common_run", ["Who?"], ["Konya writes novels."], text)
    assert scorer.whole(0, tokens) == 1.0 and scorer.whole(0, text.answer("")) == 0.0
    assert scorer.read_on(0, tokens[:-2]).score < 1.0


def test_a_batch_is_scored_in_one_call_and_questions_keep_their_order(tiny_checkpoint):
    text = make_text(tiny_checkpoint.tokenizer, Template(), tiny_checkpoint.end_tokens)
    calls = []

    def score(prepared_Q, answers_QS):
        calls.append(len(prepared_Q))
        return [[len(a) / 100 for a in answers] for answers in answers_QS]

    reward = from_function(len)._replace(score=score)
    tokens_QS = [[text.answer("a" * (q + s)) for s in range(3)] for q in range(5)]
    texts, scores_QS = scores_across_processes(Scorer("own", reward, list("abcde"), text), tokens_QS)
    assert calls == [5] and texts == [["a" * (q + s) for s in range(3)] for q in range(5)]
    np.testing.assert_array_equal(scores_QS, [[(q + s) / 100 for s in range(3)] for q in range(5)])
