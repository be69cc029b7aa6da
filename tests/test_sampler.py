import numpy as np
import pytest
from scipy import stats
from test_draw import chi_square, warped

import pmc_jax
from pmc_jax.distributed import device_kind
from pmc_jax.errors import UserError
from pmc_jax.sampling import engine, prompts
from pmc_jax.sampling.batches import group_rows
from pmc_jax.sampling.generate import configured_sampler, greedy_sampling, round_sampler, round_sampling
from pmc_jax.sampling.prompts import accepted_length, left_pad, with_drafts
from pmc_jax.sampling.uniforms import row_uniforms

HOT = dict(num_samples=6, temperature=1.3, top_p=0.95, top_k=50, max_new_tokens=48, seed=3)


def make(checkpoint, config, **changes):
    """A sampler as the rounds use it."""
    hot = dict(num_samples=6, temperature=1.3, top_k=50, top_p=0.95)
    return configured_sampler(checkpoint, config, round_sampling(config).replace(**(hot | changes)))


def make_greedy(checkpoint, config, max_new_tokens):
    return configured_sampler(checkpoint, config, greedy_sampling(config).replace(max_new_tokens=max_new_tokens))


def tokens(sampler, questions, round_index=0, end_tokens=None):
    """[question][sample] -> token ids. end_tokens: what ends an answer, in the place of the sampler's own."""
    prompts = left_pad([sampler.text.prompt(q) for q in questions], questions)
    text = sampler.text if end_tokens is None else sampler.text._replace(end_tokens=end_tokens)
    return sampler._replace(text=text).tokens(prompts, round_index)


@pytest.fixture(scope="module")
def many(tiny_checkpoint, forget_questions):
    """The answers that all the ways of batching are compared with: 8 questions x 6 samples in one batch, which is
    compacted.
    """
    return pmc_jax.sample(tiny_checkpoint, forget_questions, **HOT)


def test_shape_and_variety(many):
    assert [len(samples) for samples in many] == [6] * 8
    assert len({answer for samples in many for answer in samples}) > 30
    lengths = [len(answer) for samples in many for answer in samples]
    assert max(lengths) > 2 * min(lengths), "answers of one length would compact nothing"


def test_a_question_alone_gets_the_same_answers(tiny_checkpoint, forget_questions, many):
    assert pmc_jax.sample(tiny_checkpoint, forget_questions[:1], **HOT) == many[:1]


def test_order_neighbours_and_duplicates_do_not_matter(tiny_checkpoint, forget_questions, many):
    order = [3, 7, 1, 3]
    assert pmc_jax.sample(tiny_checkpoint, [forget_questions[i] for i in order], **HOT) == [many[i] for i in order]


@pytest.mark.parametrize("max_rows", [1, 18, 24, 4096])
def test_batches_of_any_size(tiny_checkpoint, forget_questions, many, small, max_rows):
    """1: less than one question's samples; 18: three questions a batch, the last batch not full; 4096: all at once."""
    config = small({"sample.max_rows": max_rows})
    assert pmc_jax.sample(tiny_checkpoint, forget_questions, **HOT, config=config) == many


def drafts_of(checkpoint, questions, many, small):
    """Drafts of all kinds for 8 questions: an own sample, whole, cut, gone on with; the greedy answer; another
    question's; noise; one token; none.
    """
    text = make(checkpoint, small()).text
    firsts = [text.answer(samples[0]) for samples in many]
    (greedy,) = pmc_jax.sample(checkpoint, questions[3:4], temperature=0.0)[0]
    noise = np.random.default_rng(0).integers(5, 100, 20).tolist()
    return [
        firsts[0],
        firsts[1][:5],
        firsts[2][:-1] + noise,
        text.answer(greedy),
        firsts[0],
        noise,
        firsts[6][:1],
        [],
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"sample.max_rows": 18}, {"sample.top_k": 0, "sample.top_p": 1.0}, {"sample.max_new_tokens": 12}]
)
def test_drafts_change_nothing(tiny_checkpoint, tiny_phi, forget_questions, many, small, changes):
    for checkpoint in (tiny_checkpoint, tiny_phi):
        config = small(
            {"sample.temperature": 1.3, "sample.num_samples": 6, "sample.max_new_tokens": 48, "seed": 3} | changes
        )
        sampler = round_sampler(checkpoint, config)
        plain = left_pad([sampler.text.prompt(q) for q in forget_questions], forget_questions)
        drafts, longest = drafts_of(checkpoint, forget_questions, many, small), config.sample.max_new_tokens
        answers = sampler.tokens(plain)
        for share in (0.25, 1.0):  # most drafts cut, or none
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(prompts, "DRAFT_SHARE", share)
                drafted = with_drafts(plain, drafts, sampler.text.end_tokens, longest)
            assert drafted.drafts_QA.shape[1] > 1
            assert sampler.tokens(drafted) == answers


def test_a_draft_is_read_once_and_saves_its_decode_steps(tiny_checkpoint, forget_questions, small, monkeypatch):
    sampler = make_greedy(tiny_checkpoint, small(), 64)
    questions = forget_questions[:4]
    plain = left_pad([sampler.text.prompt(q) for q in questions], questions)
    answers = sampler.tokens(plain)
    drafted = with_drafts(
        plain, [a[:-1] + [0] * (i == 1) for i, (a,) in enumerate(answers)], sampler.text.end_tokens, 64
    )
    steps = []
    spied = engine.decode_chunk
    monkeypatch.setattr(engine, "decode_chunk", lambda *given, **static: steps.append(given) or spied(*given, **static))
    monkeypatch.setattr(prompts, "DRAFT_SHARE", 1.0)
    whole = with_drafts(plain, [a for (a,) in answers], sampler.text.end_tokens, 64)
    assert sampler.tokens(whole) == answers and not steps, "all rows end with their drafts"
    assert sampler.tokens(drafted) == answers


def test_how_many_tokens_are_the_drafts():
    for tokens, wanted in (([5, 6, 7], 3), ([5, 6, 8, 7], 2), ([5, 6, 7, 9], 3), ([1], 0), ([], 0)):
        assert accepted_length(np.array([5, 6, 7, -1]), tokens) == wanted


def test_rows_of_a_question_stay_together():
    groups = group_rows(np.array([0, 1, 4, 5, 6, 7, 9, 11]), rows_together=5, sharing=2)
    assert [g.tolist() for g in groups] == [[0, 1], [4, 4], [5, 6], [7, 9], [11, 11]]
    assert [g.tolist() for g in group_rows(np.array([3, 8]), rows_together=1, sharing=1)] == [[3], [8]]


@pytest.mark.parametrize("first_slots", [8, 16])
def test_rows_that_outgrow_their_batch_go_on_in_smaller_ones(
    tiny_checkpoint, forget_questions, many, monkeypatch, first_slots
):
    monkeypatch.setattr(device_kind, "CPU", device_kind.CPU._replace(first_slots=first_slots))
    compacted = []
    spied = engine.compact
    monkeypatch.setattr(engine, "compact", lambda *given: compacted.append(spied(*given)) or compacted[-1])
    assert pmc_jax.sample(tiny_checkpoint, forget_questions, **HOT) == many
    assert max(map(len, compacted)) > 1, "no batch was split"


def test_spare_capacity(tiny_checkpoint, forget_questions, many, small):
    sampler = make(tiny_checkpoint, small(), max_new_tokens=48, seed=3).with_capacity(8)
    assert sampler.answers(forget_questions[:3]) == many[:3]
    assert sampler.answers(forget_questions) == many


def test_fewer_samples_are_the_first_of_many(tiny_checkpoint, forget_questions, many):
    assert pmc_jax.sample(tiny_checkpoint, forget_questions, **(HOT | {"num_samples": 1})) == [
        samples[:1] for samples in many
    ]


def test_a_shorter_limit_is_a_prefix(tiny_checkpoint, forget_questions, small):
    long = tokens(make(tiny_checkpoint, small(), max_new_tokens=48), forget_questions)
    for limit in (1, 32):
        short = tokens(make(tiny_checkpoint, small(), max_new_tokens=limit), forget_questions)
        assert short == [[answer[:limit] for answer in samples] for samples in long]


def test_several_end_tokens_cut_the_same_draws(tiny_checkpoint, forget_questions, small):
    ends = tiny_checkpoint.end_tokens
    plain = tokens(make(tiny_checkpoint, small()), forget_questions)
    common = np.bincount([t for samples in plain for answer in samples for t in answer if t not in ends]).argsort()[-3:]
    more = (*ends, *map(int, common))
    answers = tokens(make(tiny_checkpoint.replace(end_tokens=more), small()), forget_questions)
    for samples, cut_samples in zip(plain, answers):
        for answer, cut in zip(samples, cut_samples):
            first = next((i for i, t in enumerate(answer) if t in more), len(answer) - 1)
            assert cut == answer[: first + 1]
            assert not set(cut[:-1]) & set(more)


def test_every_row_ends_at_once(tiny_checkpoint, forget_questions, small):
    everything = tuple(range(tiny_checkpoint.config.vocab_size))
    answers = tokens(make(tiny_checkpoint, small()), forget_questions, end_tokens=everything)
    assert {len(answer) for samples in answers for answer in samples} == {1}


def test_greedy_is_the_argmax_of_the_logits_without_a_cache(tiny_checkpoint, tiny_phi, small, forget_questions):
    questions = [forget_questions[0], "Who?", forget_questions[5] + " " + " ".join(forget_questions[:2])]
    for checkpoint in (tiny_checkpoint, tiny_phi):
        sampler = make_greedy(checkpoint, small(), 12)
        answers = tokens(sampler, questions)
        for question, (answer,) in zip(questions, answers):
            prompt = sampler.text.prompt(question)
            ids = np.zeros((1, 160), np.int32)
            ids[0, : len(prompt) + len(answer)] = prompt + answer
            logits_TV = pmc_jax.logits(checkpoint, ids, np.arange(160)[None] < len(prompt) + len(answer))[0]
            assert np.argmax(logits_TV, axis=-1)[len(prompt) - 1 :][: len(answer)].tolist() == answer
            assert len(answer) == 12 or answer[-1] in checkpoint.end_tokens


def test_greedy_knows_what_was_learnt_and_does_not_depend_on_the_seed(tiny_checkpoint, tiny_phi, splits):
    rows = splits["full"]
    for checkpoint in (tiny_checkpoint, tiny_phi):
        answers = pmc_jax.sample(checkpoint, [r["question"] for r in rows], temperature=0.0, max_new_tokens=64)
        assert np.mean([samples == [row["answer"]] for samples, row in zip(answers, rows)]) > 0.9
        again = pmc_jax.sample(checkpoint, [r["question"] for r in rows], temperature=0.0, max_new_tokens=64, seed=9)
        assert answers == again


def test_prompts_of_very_different_length(tiny_checkpoint, forget_questions, many):
    long = " ".join(forget_questions[1:6])
    answers = pmc_jax.sample(tiny_checkpoint, ["Who?", forget_questions[0], long], **HOT)
    assert answers[1] == many[0]
    assert answers[0] == pmc_jax.sample(tiny_checkpoint, ["Who?"], **HOT)[0]


def test_first_and_second_token_follow_the_models_own_distribution(tiny_checkpoint, forget_questions, small):
    config = small({"sample.max_rows": 4000})
    sampler = make(tiny_checkpoint, config, num_samples=4000, temperature=2.5, max_new_tokens=2)
    (answers,) = tokens(sampler, forget_questions[:1])
    prompt = sampler.text.prompt(forget_questions[0])
    first = np.array([a[0] for a in answers])
    likeliest = int(np.bincount(first).argmax())
    second = np.array([a[1] for a in answers if a[0] == likeliest])
    assert len(second) > 300
    logits_TV = np.asarray(pmc_jax.logits(tiny_checkpoint, [[*prompt, likeliest]])[0])
    assert chi_square(first, warped(logits_TV[-2], 2.5, 50, 0.95)) > 1e-3
    assert chi_square(second, warped(logits_TV[-1], 2.5, 50, 0.95)) > 1e-3


def test_draws_differ_by_seed_round_question_sample_and_position(fresh_checkpoint, small):
    """An untrained model's distribution is about the same everywhere, so that the same key would give the same token
    again and again.
    """
    never = (10**6,)
    questions = ["Who is it?", "Who was it?", "Where?"]

    def drawn(seed=0, round_index=0):
        plain = dict(temperature=1.0, top_k=0, top_p=1.0)
        sampler = make(fresh_checkpoint, small(), num_samples=5, max_new_tokens=24, seed=seed, **plain)
        return np.array(tokens(sampler, questions, round_index, end_tokens=never))

    base_QSC = drawn()
    assert base_QSC.shape == (3, 5, 24), "no row ends"
    assert (drawn() == base_QSC).all()
    for name, other in {"seed": drawn(1), "round": drawn(0, 1), "seed and round": drawn(1, 1)}.items():
        assert np.mean(other == base_QSC) < 0.05, name
    assert np.mean(drawn(1) == drawn(0, 1)) < 0.05, "seed and round must not be interchangeable"
    for axis, name in enumerate(("question", "sample", "position")):
        assert np.mean(base_QSC == np.roll(base_QSC, 1, axis)) < 0.05, name
    diagonal = np.stack([base_QSC[i, i] for i in range(3)])
    assert np.mean(diagonal[0] == diagonal[1]) < 0.2
    assert np.mean(base_QSC[0, 1] == base_QSC[1, 0]) < 0.2, "question and sample must not be interchangeable"
    assert np.mean(base_QSC[0, 0, 1:] == base_QSC[0, 1, :-1]) < 0.2, "sample and position must not be interchangeable"


def test_phi_in_any_batch(tiny_phi, forget_questions, small):
    answers = pmc_jax.sample(tiny_phi, forget_questions, **HOT)
    assert pmc_jax.sample(tiny_phi, forget_questions, **HOT, config=small({"sample.max_rows": 18})) == answers
    assert not any("Answer:" in answer[:8] for samples in answers for answer in samples)


def test_no_questions_and_values_out_of_bounds(tiny_checkpoint):
    assert pmc_jax.sample(tiny_checkpoint, []) == []
    for bad in (dict(num_samples=0), dict(max_new_tokens=0), dict(temperature=-1.0), dict(top_p=0.0), dict(top_k=-1)):
        with pytest.raises(UserError, match=next(iter(bad))):
            pmc_jax.sample(tiny_checkpoint, ["Who?"], **bad)


def test_progress_counts_questions(tiny_checkpoint, forget_questions, small):
    seen = []
    sampler = make(tiny_checkpoint, small({"sample.max_rows": 18}))
    sampler.answers(forget_questions, on_progress=seen.append)
    assert seen[-1] == 8 and seen == sorted(seen)


def test_each_row_has_a_stream_of_random_numbers_of_its_own():
    keys = np.array([5, 9], np.uint32)
    long = row_uniforms(keys, 3, 1, 50, 128)
    assert long.shape == (100, 128, 2) and long.dtype == np.float32 and 0 <= long.min() and long.max() < 1
    assert stats.kstest(long.ravel(), "uniform").pvalue > 1e-3 and len(np.unique(long[:, 0, 0])) == 100
    short = row_uniforms(keys[::-1], 3, 1, 2, 20)
    assert short.shape[1] >= 20 and (short[[2, 3, 0, 1]] == long[[0, 1, 50, 51], : short.shape[1]]).all()
    for seed, number in ((4, 1), (3, 2), (-3, 1)):
        assert not np.isin(row_uniforms(keys, seed, number, 2, 20)[:, 0], long[:, 0]).all(axis=-1).any()
