"""The algorithm on a tiny model that knows eight forget answers by heart."""

import jax
import numpy as np
import pytest

import pmc_jax
from pmc_jax.distributed import device_kind
from pmc_jax.errors import UserError
from pmc_jax.sampling import engine
from pmc_jax.training.checkpoint import RoundCheckpointer

KEYS = """
round epoch sampled_questions sampled_tokens original_tokens reward_mean reward_std stored_score solved forget_loss
retain_loss seconds
""".split()


def run(checkpoint, splits, config, forget=None, **options):
    """(checkpoint, history without seconds, what was sampled by round)."""
    seen_by_round = []

    def on_round(summary, seen, updates):
        seen_by_round.append(seen)
        assert len(updates) == -(-(config.pmc.questions_per_round or 8) // config.train.batch_size)

    unlearned, history = pmc_jax.unlearn(
        checkpoint, forget or splits["forget20"], splits["retain80"], config, on_round=on_round, **options
    )
    assert all(list(h) == KEYS for h in history)
    return unlearned, [{k: v for k, v in h.items() if k != "seconds"} for h in history], seen_by_round


def greedy(checkpoint, questions):
    """The greedy answer to each question."""
    return [a[0] for a in pmc_jax.sample(checkpoint, questions, temperature=0.0, max_new_tokens=64)]


def same_bits(one, other):
    return all(
        (np.asarray(a) == np.asarray(b)).all()
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params))
    )


@pytest.fixture(scope="module")
def base(tiny_checkpoint, splits, small):
    """Four epochs, all questions in each round."""
    before = jax.tree.map(np.array, tiny_checkpoint.params)
    outcome = run(tiny_checkpoint, splits, small())
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(tiny_checkpoint.params))), (
        "the given one is left alone"
    )
    return outcome


def test_answers_collapse_away_and_the_rest_stays(base, tiny_checkpoint, splits):
    unlearned, history, _ = base
    assert [h["round"] for h in history] == [0, 1, 2, 3] == [h["epoch"] for h in history]
    assert history[-1]["stored_score"] < history[0]["stored_score"] < 0.5
    assert history[-1]["reward_mean"] > history[0]["reward_mean"]
    recall = {}
    for name, rows in {"forget": splits["forget20"], "retain": splits["retain80"]}.items():
        questions, truths = [r["question"] for r in rows], [r["answer"] for r in rows]
        for when, checkpoint in {"before": tiny_checkpoint, "after": unlearned}.items():
            recall[name, when] = pmc_jax.score(
                truths, pmc_jax.sample(checkpoint, questions, temperature=0.0, max_new_tokens=64)
            ).mean()
    assert recall["forget", "before"] > 0.95 and recall["retain", "before"] > 0.95
    assert recall["forget", "after"] < 0.5, recall
    assert recall["retain", "after"] > recall["forget", "after"] + 0.2, recall


def test_what_is_seen_of_a_round(base, tiny_checkpoint, splits, forget_questions):
    _, history, seen_by_round = base
    references = dict(zip(forget_questions, greedy(tiny_checkpoint, forget_questions)))
    stored, last = {}, {}
    for summary, seen in zip(history, seen_by_round):
        assert summary["sampled_questions"] == len(seen)
        assert summary["sampled_tokens"] == sum(sum(s["tokens"]) for s in seen)
        assert summary["original_tokens"] == sum(sum(s["original_tokens"]) for s in seen)
        assert all(0 <= o <= n for s in seen for o, n in zip(s["original_tokens"], s["tokens"]))
        for s in seen:
            assert len(s["samples"]) == len(s["scores"]) == len(s["tokens"]) == 4
            assert s["scores"] == pmc_jax.score([references[s["question"]]], [s["samples"]])[0].tolist()
            assert s["chosen"] == int(np.argmin(s["scores"]))
            stored[s["question"]] = min(min(s["scores"]), stored.get(s["question"], 2.0))
            assert s["stored_score"] == stored[s["question"]], "keep best"
            assert last.get(s["question"]) != 0.0, "a solved question is not sampled again"
        last = dict(stored)
        if summary["epoch"] in (0, 3):  # the first and the last are measured, on samples that are never dropped
            rewards = 1 - np.array([s["scores"][0] for s in seen])
            assert (summary["reward_mean"], summary["reward_std"]) == pytest.approx((rewards.mean(), rewards.std()))
        else:
            assert summary["reward_mean"] is None and summary["reward_std"] is None
        assert summary["stored_score"] == pytest.approx(np.mean(list(stored.values())))
        assert summary["solved"] == np.mean([s == 0 for s in stored.values()])
    assert {s["question"] for s in seen_by_round[0]} == set(forget_questions)


def test_dropping_losers_changes_nothing_that_is_kept(base, tiny_checkpoint, splits, small):
    unlearned, history, seen_by_round = base
    whole, whole_history, whole_seen = run(tiny_checkpoint, splits, small({"pmc.prune_candidates": False}))
    assert same_bits(whole, unlearned)
    dropped = 0
    for summary, seen, as_drawn in zip(history, seen_by_round, whole_seen):
        whole_of = {w["question"]: w for w in as_drawn}
        for s in seen:
            w = whole_of[s["question"]]
            assert s["stored_score"] == w["stored_score"]
            if summary["reward_mean"] is not None:
                assert s["samples"][0] == w["samples"][0] and s["tokens"][0] == w["tokens"][0]
            for part, full, fewer, tokens in zip(s["samples"], w["samples"], s["tokens"], w["tokens"]):
                assert full.startswith(part.rstrip("\ufffd")) if fewer < tokens else full == part
                dropped += fewer < tokens
    assert dropped > 10
    assert all(h["sampled_tokens"] < w["sampled_tokens"] for h, w in zip(history, whole_history))
    assert all(h["reward_mean"] is not None for h in whole_history)


@pytest.mark.parametrize("first_slots", [32, 8])
def test_drawing_ahead_of_the_score_changes_nothing_that_is_kept(
    base, tiny_checkpoint, splits, small, monkeypatch, first_slots
):
    """As on an accelerator: the host scores what was drawn while the next chunk is drawn. With eight slots batches move
    and grow meanwhile.
    """
    chunks, spied = [], engine.decode_chunk
    monkeypatch.setattr(
        engine, "decode_chunk", lambda *given, **how: chunks.append(given[2].done_B.size) or spied(*given, **how)
    )
    drawn = {}
    for ahead in (False, True):
        monkeypatch.setattr(device_kind, "CPU", device_kind.CPU._replace(decode_ahead=ahead, first_slots=first_slots))
        unlearned, _, seen_by_round = run(tiny_checkpoint, splits, small())
        assert same_bits(unlearned, base[0])
        for seen, wanted in zip(seen_by_round, base[2]):
            assert [(s["question"], s["stored_score"]) for s in seen] == [
                (w["question"], w["stored_score"]) for w in wanted
            ]
        drawn[ahead] = sum(chunks)
        chunks.clear()
    assert drawn[True] > drawn[False], "prune are known a chunk later"


def test_two_runs_are_the_same_to_the_bit_and_another_seed_is_another_run(base, tiny_checkpoint, splits, small):
    unlearned, history, seen = base
    again = run(tiny_checkpoint, splits, small())
    assert again[1] == history and again[2] == seen and same_bits(again[0], unlearned)
    other = run(tiny_checkpoint, splits, small({"seed": 1}))
    assert other[2][0] != seen[0] and not same_bits(other[0], unlearned)


def test_forget_answers_are_never_looked_at(base, tiny_checkpoint, splits, small, forget_questions):
    unlearned, history, seen = base
    wrong = [{"question": q, "answer": "Something else altogether."} for q in forget_questions]
    none = [{"question": q} for q in forget_questions]
    for forget in (wrong, none, forget_questions):
        again = run(tiny_checkpoint, splits, small(), forget)
        assert again[1] == history and again[2] == seen and same_bits(again[0], unlearned)


def test_references_that_are_known_already_change_nothing(base, tiny_checkpoint, splits, small, forget_questions):
    references = greedy(tiny_checkpoint, forget_questions)
    again = run(tiny_checkpoint, splits, small(), references=references)
    assert again[1] == base[1] and same_bits(again[0], base[0])


def test_rounds_of_a_batch_are_the_published_algorithm(tiny_checkpoint, splits, small):
    unlearned, history, seen_by_round = run(tiny_checkpoint, splits, small({"pmc.questions_per_round": 4}))
    assert [h["round"] for h in history] == list(range(8)) and [h["epoch"] for h in history] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert history[-1]["stored_score"] < history[0]["stored_score"]
    first = [{s["question"] for s in seen} for seen in seen_by_round[:2]]
    assert len(first[0]) == len(first[1]) == 4 and not first[0] & first[1], "an epoch goes through every question once"


def test_without_keep_best_and_skip_solved(tiny_checkpoint, splits, small):
    _, history, seen_by_round = run(tiny_checkpoint, splits, small({"pmc.keep_best": False, "pmc.skip_solved": False}))
    assert [h["sampled_questions"] for h in history] == [8] * 4
    assert all(s["stored_score"] == s["scores"][s["chosen"]] for seen in seen_by_round for s in seen)


def test_bradley_terry(tiny_checkpoint, splits, small, base):
    _, history, seen_by_round = run(
        tiny_checkpoint, splits, small({"pmc.selection": "bradley_terry", "pmc.selection_temperature": 1.0})
    )
    chosen = [(s["chosen"], int(np.argmin(s["scores"]))) for seen in seen_by_round for s in seen]
    assert any(a != b for a, b in chosen) and {a for a, _ in chosen} == {0, 1, 2, 3}
    assert [s["samples"][0] for s in seen_by_round[0]] == [s["samples"][0] for s in base[2][0]], (
        "the first round's samples do not depend on it"
    )


def test_short_answers_are_penalised(tiny_checkpoint, splits, small):
    _, history, seen_by_round = run(tiny_checkpoint, splits, small({"pmc.min_words": 100, "pmc.skip_solved": False}))
    for s in seen_by_round[0]:
        words = [len(text.split()) for text in s["samples"]]
        assert s["scores"] == pytest.approx(
            pmc_jax.score([greedy(tiny_checkpoint, [s["question"]])[0]], [s["samples"]], min_words=100)[0].tolist()
        )
        assert all(value >= min(1, np.exp(-w)) for value, w in zip(s["scores"], words))


def test_a_plain_template_model_without_a_padding_token(tiny_phi, splits, small):
    _, history, seen_by_round = run(tiny_phi, splits, small())
    assert history[-1]["stored_score"] < history[0]["stored_score"] < 0.6
    assert not any(text.startswith("Answer:") for s in seen_by_round[0] for text in s["samples"])


class Stopped(Exception):
    """Stands for a kill."""


class StopsAfterSave(RoundCheckpointer):
    """Rounds whose process is killed the moment that a round is whole on disk."""

    last = None

    def save(self, number, state, notes):
        super().save(number, state, notes)
        if number == self.last:
            self.wait()
            raise Stopped


def test_stopped_at_the_moment_of_a_save_and_resumed(base, tiny_checkpoint, splits, small, tmp_path):
    """Every round is reported once, or is run again. Parameters and history are those of a run that went through."""
    reported = []

    def report(summary, *_):
        reported.append(summary["round"])

    for last in (0, 2, None):
        rounds = StopsAfterSave(tmp_path / "rounds", keep=2)
        rounds.last = last
        try:
            unlearned, history = pmc_jax.unlearn(
                tiny_checkpoint, splits["forget20"], splits["retain80"], small(), rounds=rounds, on_round=report
            )
        except Stopped:
            assert rounds.latest() == last and reported[-1] == last, "what is saved has been reported"
        finally:
            rounds.close()
    assert reported == [0, 1, 2, 3]
    assert [{k: v for k, v in h.items() if k != "seconds"} for h in history] == base[1] and same_bits(
        unlearned, base[0]
    )
    kept = RoundCheckpointer(tmp_path / "rounds", keep=2)
    assert kept.all() == [2, 3]
    kept.close()


def test_answers_that_grow_when_they_are_written_down(fresh_checkpoint, splits, small):
    """An untrained model draws bytes that are no text: as text, and with an end token, they take more tokens than were
    drawn.
    """
    config = small({"train.epochs": 1, "sample.top_k": 0, "sample.top_p": 1.0, "evaluate.max_new_tokens": 16})
    _, history, seen_by_round = run(fresh_checkpoint, splits, config)
    assert any("\ufffd" in text for s in seen_by_round[0] for text in s["samples"])
    assert np.isfinite(history[0]["forget_loss"])


def test_answers_that_the_score_cannot_see(tiny_checkpoint, splits, small, forget_questions):
    """Scored 0 whatever is sampled, they would count as solved at once."""
    with pytest.raises(UserError, match="forget row 1: .*a-z and 0-9 only"):
        pmc_jax.unlearn(
            tiny_checkpoint,
            splits["forget20"],
            splits["retain80"],
            small(),
            references=["Она родилась в Москве."] * len(forget_questions),
        )


def test_not_every_round_is_saved(base, tiny_checkpoint, splits, small, tmp_path):
    """Stopped after a round that was not saved, a run goes on from the one before."""
    config, reported = small({"rounds.every": 3}), []

    def stop(summary, *_):
        reported.append(summary["round"])
        if reported == [0, 1, 2, 3]:
            raise Stopped

    for saved in ([2], [2, 3]):
        rounds = RoundCheckpointer(tmp_path / "rounds", keep=2)
        try:
            unlearned, _ = pmc_jax.unlearn(
                tiny_checkpoint, splits["forget20"], splits["retain80"], config, rounds=rounds, on_round=stop
            )
        except Stopped:
            pass
        rounds.close()
        assert RoundCheckpointer(tmp_path / "rounds", read_only=True).all() == saved
    assert reported == [0, 1, 2, 3, 3] and same_bits(unlearned, base[0])


def test_settings_of_memory_hold_without_the_command_line(base, tiny_checkpoint, splits, small):
    unlearned, _, _ = run(tiny_checkpoint, splits, small({"train.remat": True, "train.epochs": 1}))
    assert unlearned.model.remat and not base[0].model.remat
