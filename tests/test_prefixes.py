"""Prefix-PMC: prefixes are the model's own words, drawn by (seed, epoch, question, row); labels come behind them."""

import json

import jax
import numpy as np
import pytest

import pmc_jax
from pmc_jax.data.packing import FORGET
from pmc_jax.data.prompts import training_row
from pmc_jax.errors import UserError
from pmc_jax.methods.memory import Memory, without_last_epoch
from pmc_jax.methods.prefixes import Original, Prefixes, behind_prefix, draw_splits, word_range
from pmc_jax.methods.settings import read_schedule
from pmc_jax.methods.sources import make_source
from pmc_jax.methods.unlearn import check_data
from pmc_jax.sampling.generate import text_of
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.checkpoint import RoundCheckpointer

ANSWER = "Basil was born in Kuwait City, in the year 1956."
TWO = {"pmc.prefix_rows": 2}


@pytest.fixture(params=["chat", "plain", "raw text"])
def text(request, tiny_checkpoint, tiny_phi, small):
    config = small({"data.text_window": 16} if request.param == "raw text" else {})
    return text_of(tiny_phi if request.param == "plain" else tiny_checkpoint, config)


def test_an_answer_is_cut_between_words_and_nothing_is_lost(text):
    original = Original(text, ANSWER, room=99)
    assert original.words == 10 and len(original.cuts) == 9, "the last word is never given"
    for words in range(1, 10):
        split = original.split(words)
        assert split.given + split.draft == text.answer(ANSWER)
        assert split.prefix.split() == ANSWER.split()[:words] and split.rest.split() == ANSWER.split()[words:]
        assert text.read(split.given + split.draft) == ANSWER
    assert original.split(99) == original.split(9), "all but one word at most"


def test_a_prefix_leaves_room_and_one_word_is_asked_for_whole(text):
    room = len(Original(text, ANSWER, 99).split(3).given)
    assert len(Original(text, ANSWER, room).cuts) == 3
    assert Original(text, "Kuwait", 99).split(1)[:3] == ([], "", "Kuwait")


@pytest.mark.parametrize(
    ("low", "high", "words", "expected"),
    [(0, 0.8, 10, (1, 8)), (0.5, 0.5, 10, (5, 5)), (0, 0, 10, (1, 1)), (0.9, 0.95, 5, (5, 5)), (0, 1, 1, (1, 1))],
)
def test_at_least_one_word_and_a_share_of_the_answer(low, high, words, expected):
    assert word_range(Prefixes(1, low, high), words) == expected


def test_prefixes_are_drawn_by_seed_epoch_question_and_row(text):
    originals = [Original(text, f"{ANSWER} {n}", 99) for n in range(8)]
    prefixes = Prefixes(3, 0.0, 1.0)
    drawn = draw_splits(prefixes, originals, seed=1, epoch=2)
    assert drawn == draw_splits(prefixes, originals, seed=1, epoch=2) and len(drawn) == 24
    assert drawn[:8] == draw_splits(prefixes._replace(rows=1), originals, seed=1, epoch=2)
    assert drawn[:3] == draw_splits(prefixes, originals[:3], seed=1, epoch=2)[:3], "whatever else is asked"
    others = (draw_splits(prefixes, originals, *key) for key in ((1, 3), (2, 2)))
    assert all(other != drawn for other in others) and drawn[:8] != drawn[8:16]


def test_only_the_continuation_is_labelled(text):
    split = Original(text, ANSWER, 99).split(4)
    whole = training_row(text, "Who?", ANSWER, 200, FORGET)
    row = behind_prefix(whole, split.given)
    assert row.tokens == whole.tokens and row.tokens[row.start :] == split.draft
    assert behind_prefix(whole, []) == whole
    last = behind_prefix(whole, text.answer(ANSWER))
    assert last.start == len(last.tokens) - 1, "one label at least"


def test_what_is_stored_of_a_prefix_is_for_its_epoch():
    memory = Memory(["a", "b"], ["x"] * 6, [0.0] * 6, [1.0] * 6)
    assert without_last_epoch(memory, np.array([5, 1, 2])).scores == [0.0, 0.0, None, 0.0, 0.0, None]


def test_a_round_may_hold_all_prompts_and_no_more(splits, small):
    sides = splits["forget20"], splits["retain80"]
    check_data(small(TWO | {"pmc.questions_per_round": 24}), *sides)
    with pytest.raises(UserError, match="only 24 forget questions, those with a prefix included"):
        check_data(small(TWO | {"pmc.questions_per_round": 25}), *sides)


def begun(checkpoint, splits, config):
    source = make_source(checkpoint, config, splits["forget20"], splits["retain80"], None)
    return source, source.begin(None, Clock())


def test_an_epoch_asks_in_shapes_that_stay(tiny_checkpoint, splits, small):
    """Nothing is compiled anew; the questions themselves are asked as without prefixes."""
    source, memory = begun(tiny_checkpoint, splits, small(TWO))
    plain, _ = begun(tiny_checkpoint, splits, small())
    epochs = [source.asking.epoch(number) for number in (0, 1, 0)]
    shapes = [[x.shape for x in asked.prompts] for asked in epochs]
    assert shapes[0] == shapes[1] and epochs[0].splits == epochs[2].splits != epochs[1].splits
    assert len(memory.answers) == len(epochs[0].splits) == 24 and source.schedule.questions == 24
    assert (epochs[0].prompts.keys_Q[:8] == plain.asking.plain.prompts.keys_Q).all()
    assert len(set(epochs[0].prompts.keys_Q.tolist())) == 24
    assert read_schedule(small({"pmc.prefix_rows": 2, "method": "npo"}), 8).questions == 8, "PMC's alone"


@pytest.mark.parametrize("changes", [{}, {"pmc.questions_per_round": 6}, {"pmc.reward": "longest_common_run"}])
def test_a_run_goes_on_to_the_same_bits_and_tells_what_was_given(tiny_checkpoint, splits, small, tmp_path, changes):
    config, data = small(TWO | {"train.epochs": 2} | changes), (splits["forget20"], splits["retain80"])
    seen = []

    def tell(line, samples, updates):
        seen.append(samples)
        if line["round"] == 1 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    stopped = [True]
    whole, history = pmc_jax.unlearn(tiny_checkpoint, *data, config, on_round=tell)
    first, seen, stopped = seen, [], []
    rounds = RoundCheckpointer(tmp_path / "rounds")
    with pytest.raises(KeyboardInterrupt):
        pmc_jax.unlearn(tiny_checkpoint, *data, config, rounds=rounds, on_round=tell)
    resumed, again = pmc_jax.unlearn(tiny_checkpoint, *data, config, rounds=rounds, on_round=tell)
    rounds.close()
    pairs = zip(jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)
    assert json.dumps(first[-1]) == json.dumps(seen[-1]) and again[-1]["prefix_score"] == history[-1]["prefix_score"]
    given = [row for samples in first for row in samples if "prefix" in row]
    assert len(given) == 2 * 16 and all(row["prefix"] for row in given)
