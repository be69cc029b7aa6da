"""PMC-alignment: the refusal term of the loss, its rows, and a run that ends in refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET, REFUSAL, RETAIN, Packing, Row, pack
from pmc_jax.data.prompts import training_row
from pmc_jax.data.refusals import is_refusal, load_refusals
from pmc_jax.errors import UserError
from pmc_jax.evaluate.fluency import kinds_of_answers
from pmc_jax.methods.guard import Guard
from pmc_jax.methods.refusals import draw_refusals, weigh_refusals
from pmc_jax.sampling.generate import text_of
from pmc_jax.training.forward import compute_terms
from pmc_jax.training.label_values import row_nll
from pmc_jax.training.objectives import OBJECTIVES, hyperparameters, mean_nll

REFUSALS = load_refusals()


def test_there_are_twenty_refusals_and_more_all_different():
    assert len(set(REFUSALS)) == len(REFUSALS) >= 20
    assert all(len(text.split()) >= 5 for text in REFUSALS)  # past the authors' min_words


@pytest.mark.parametrize("text", [*REFUSALS, REFUSALS[0].upper(), REFUSALS[3].rstrip("."), "  " + REFUSALS[5] + "!"])
def test_refusals_are_known_as_such(text):
    assert is_refusal(text, REFUSALS)


@pytest.mark.parametrize("text", ["", "Paris.", "The capital is Paris.", "It was Oslo, I don't know why."])
def test_other_answers_are_none(text):
    assert not is_refusal(text, REFUSALS)


@pytest.mark.parametrize(
    "text", ["I'm not sure what you're asking.", "I’m sorry, but no.", "Sorry, I cannot say.", "I do not know."]
)
def test_refusals_in_words_of_their_own_count(text):
    assert is_refusal(text, ())


def test_forget_answers_are_refusals_fluent_or_neither():
    answers = ["I don't know.", "He was born in Rome.", "the the of 7", "blah"]
    kinds = kinds_of_answers(answers, [500.0, 19.0, 21.0, np.nan], own_median=2.0, refusals=REFUSALS)
    assert (kinds["refused"], kinds["fluent"], kinds["neither"], kinds["rows"]) == (0.25, 0.25, 0.5, 4)
    assert kinds["limit"] == 20.0


def test_refusals_of_the_user(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Ask the archive.\n\n  Not here. \n", "utf-8")
    assert load_refusals(str(path)) == ("Ask the archive.", "Not here.")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_file_without_refusals_is_refused_by_name(tmp_path, content):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"pmc\.refusals=.*mine\.txt"):
        load_refusals(str(path))


def test_a_refusal_is_kept_before_an_answer_that_holds_as_little():
    """The margin is for refusals alone, also for short ones; other answers keep their score."""
    guard = Guard(5, 0.2, REFUSALS)
    answers = ["I don't know the answer to that.", "Thank you for your kind letter.", "Born in Rome.", "No."]
    scores = guard.scores(np.array([[0.1, 0.05, 0.7, 0.0]]), [answers])
    assert scores[0].tolist() == pytest.approx([0.0, 0.05, 0.7 + np.exp(-3), np.exp(-1)])
    assert guard.scores(np.array([[0.5]]), [["I don't know."]])[0, 0] == pytest.approx(0.3 + np.exp(-3))
    assert Guard(0, 0.0, REFUSALS).scores(np.zeros((1, 4)), [answers]).tolist() == [[0.0] * 4]


def test_draws_depend_on_seed_epoch_and_question_alone():
    questions = np.arange(40)
    drawn = draw_refusals(1, 2, questions, REFUSALS)
    assert draw_refusals(1, 2, questions[::-1], REFUSALS) == drawn[::-1]
    assert draw_refusals(1, 3, questions, REFUSALS) != drawn
    assert len(set(drawn)) > 10


def test_the_weight_is_the_mean_score_of_the_batch():
    row = lambda group, weight=1.0: Row([1, 2, 3], 2, group, weight=weight)  # noqa: E731
    rows = [row(FORGET), row(RETAIN), row(REFUSAL, 0.6), row(FORGET), row(RETAIN), row(REFUSAL, 0.0)]
    weighed = weigh_refusals(rows)
    assert [r.weight for r in weighed if r.group == REFUSAL] == [0.3, 0.3] and len(weighed) == 6
    solved = weigh_refusals([r._replace(weight=0.0) if r.group == REFUSAL else r for r in rows])
    assert [r.group for r in solved] == [FORGET, RETAIN] * 2


def test_the_loss_adds_the_weighted_mean_of_the_refusals(tiny_checkpoint):
    """collapse + retain_weight * retain + refusal_weight * s_mean * CE(refusal), from the groups' own means."""
    rng = np.random.default_rng(0)
    draw = lambda group, weight: Row(rng.integers(5, 300, 14).tolist(), int(rng.integers(4, 10)), group, 0.0, weight)  # noqa: E731
    rows = [draw(g, w) for g, w in [(FORGET, 1.0), (RETAIN, 1.0), (REFUSAL, 0.4)] * 3]
    batch = pack(rows, Packing(0, 32, 8, 128, 9))
    model, params = tiny_checkpoint.model, tiny_checkpoint.params
    total, parts = 0.0, np.zeros(3)
    objective = OBJECTIVES["pmc"]
    hyper = hyperparameters(objective, (("refusal_weight", 0.5),))
    for index in range(int(batch.used)):
        terms = compute_terms(model, params, batch, index)
        total += float(objective.loss(terms, hyper))
        parts += [float(mean_nll(terms, group)) for group in (FORGET, RETAIN, REFUSAL)]
        plain = objective.loss(terms, hyperparameters(objective))
        assert jnp.isfinite(plain)
    assert total == pytest.approx(parts[0] + 1.25 * parts[1] + 0.5 * 0.4 * parts[2], rel=1e-5)


@pytest.fixture(scope="module")
def runs(tiny_checkpoint, splits):
    """{refusal_weight: (unlearned checkpoint, history)} of two otherwise equal runs."""
    forget, retain = [row["question"] for row in splits["forget20"]], splits["retain80"]
    values = {"train.epochs": 6, "train.batch_size": 2, "train.learning_rate": 2e-3, "sample.num_samples": 2}
    values |= {"sample.temperature": 1.4, "sample.max_new_tokens": 40, "pmc.min_words": 5}
    run = lambda weight: pmc_jax.unlearn(  # noqa: E731
        tiny_checkpoint,
        forget,
        retain,
        settings.changed(settings.default(), values | {"pmc.refusal_weight": weight}),
    )
    return {weight: run(weight) for weight in (0.0, 2.0)}


def test_refusals_become_likely(runs, forget_questions):
    text = text_of(runs[2.0][0], settings.default())
    rows = [training_row(text, q, r, 200, FORGET) for q, r in zip(forget_questions, REFUSALS)]
    nll = {w: row_nll(run.model, run.params, rows).mean() for w, (run, _) in runs.items()}
    assert nll[2.0] < 0.9 * nll[0.0]


def test_the_history_tells_the_refusals_loss_where_there_are_refusals(runs):
    losses = [line["refusal_loss"] for line in runs[2.0][1]]
    assert losses[-1] < losses[0]
    assert not any("refusal_loss" in line for line in runs[0.0][1])
