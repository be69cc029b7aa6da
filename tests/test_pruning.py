"""Samples that cannot be kept any more: on drawn answers, what is kept is the same with and without dropping them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmc_jax.data.prompts import Template, make_text
from pmc_jax.methods.guard import Guard
from pmc_jax.methods.memory import Memory, keep_best
from pmc_jax.methods.rewards import REWARDS
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.methods.selection import select
from pmc_jax.sampling.batches import Seen, cut
from pmc_jax.sampling.pruning import candidate_pruner

REFERENCE = "The author Konya Yıldız was born in Ankara, Turkey, and writes novels about the sea."
WORDS = [
    *REFERENCE.split(),
    "poems",
    "Jak",
    "Jakarta,",
    "U.S.A.",
    "日本",
    "1971",
    "write",
    "seas.",
    "Café",
    "na\nïve",
    "🙂",
]
BOUNDED = sorted(name for name, reward in REWARDS.items() if reward.lower_bound)
ANSWERS = st.lists(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join), min_size=5, max_size=5)


@pytest.fixture(scope="module", params=["chat", "plain"])
def text(request, tiny_checkpoint):
    template = Template(style=request.param)
    if template.style == "chat" and not tiny_checkpoint.tokenizer.chat_template:
        template = Template(style="plain", tag_in="prompt")
    return make_text(tiny_checkpoint.tokenizer, template, tiny_checkpoint.end_tokens)


def draw_in_chunks(text, answers, prune, chunk):
    """What the sampler does: {row: tokens} of answers that come `chunk` tokens at a time, those that lost cut short."""
    whole = {row: text.answer(answer) for row, answer in enumerate(answers)}
    found, open_rows = {}, set(whole)
    for step in range(chunk, 10**4, chunk):
        if not open_rows:
            return found
        # A row that ended goes on with whatever the device writes.
        seen = {row: Seen((whole[row] + [0] * chunk)[:step], len(whole[row]) <= step) for row in sorted(open_rows)}
        lost = prune(seen)
        assert lost <= open_rows and not any(seen[row].done for row in lost)
        for row in {row for row in open_rows if seen[row].done} | lost:
            found[row] = cut(seen[row].tokens, text.end_tokens)
            open_rows.remove(row)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=40)
@given(
    ANSWERS,
    ANSWERS,
    st.sampled_from([1, 3, 8]),
    st.sampled_from([None, 0.0, 0.2, 0.5]),
    st.sampled_from([Guard(), Guard(4), Guard(4, 0.3, ("poems",))]),
    st.integers(0, 2),
)
def test_what_is_kept_is_the_same(name, text, first, second, chunk, stored, guard, whole):
    references = [REFERENCE, REFERENCE.upper()]
    scorer = make_scorer(name, ["Who was born in Ankara?", ""], references, text, guard)
    pruner = candidate_pruner(scorer, [stored, None], 5, text.end_tokens, whole)
    drawn = [text.answer(answer) for answer in first + second]
    pruned = draw_in_chunks(text, first + second, pruner, chunk)

    def kept(tokens):
        texts, scores_QS = scorer.scores([tokens[:5], tokens[5:]])
        chosen = select(scores_QS)
        memory = Memory(references, ["stored", ""], [stored, None], [0.0, 0.0])
        picks = [samples[c] for samples, c in zip(texts, chosen)]
        return keep_best(memory, np.arange(2), picks, [float(r[c]) for r, c in zip(scores_QS, chosen)], [0, 0])

    assert kept([pruned[row] for row in range(10)]) == kept(drawn)
    assert all(pruned[row] == drawn[row] for row in range(10) if row % 5 < whole), "these are never dropped"


@pytest.mark.parametrize("name", BOUNDED)
def test_a_sample_that_repeats_the_original_is_dropped_early(text, name):
    parrot, other = (
        REFERENCE,
        "A painter of quiet rooms, known for very little else, who lived by herself for years and years in the hills.",
    )
    scorer = make_scorer(name, ["Who?"], [REFERENCE], text)
    tokens = draw_in_chunks(text, [other, parrot], candidate_pruner(scorer, [0.3], 2, text.end_tokens), 4)
    assert len(tokens[1]) < len(text.answer(parrot)) / 2 and len(tokens[0]) == len(text.answer(other))


def test_only_whole_words_count(text):
    for answer in (REFERENCE, "日本 Café 🙂 naïve", "U.S.A. don't"):
        ids = text.answer(answer)[:-1]
        words = text.read(ids).split()
        for n in range(len(ids) + 1):
            part = text.read_part(ids[:n]).split()
            assert part == words[: len(part)] and len(part) < len(words)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=40)
@given(ANSWERS, st.integers(1, 9))
def test_reading_on_finds_what_reading_all_finds(name, text, answers, chunk):
    """The bound of each beginning, and the score of the whole answer, with or without what was read before."""
    scorer = make_scorer(name, ["Who was born in Ankara?"], [REFERENCE], text)
    read = text.read_tokens if scorer.reward.reads == "tokens" else text.read_part
    for answer in answers:
        tokens, part = text.answer(answer), None
        for n in range(chunk, len(tokens), chunk):
            part = scorer.read_on(0, tokens[:n], part)
            bound = scorer.reward.lower_bound(scorer.prepared_Q[0], read(tokens[:n]))
            assert part.score == bound
        assert scorer.whole(0, tokens, part) == scorer.whole(0, tokens) == scorer.scores([[tokens]])[1][0, 0]
