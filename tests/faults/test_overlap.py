"""Sets are held against each other before anything is trained or measured."""

import pytest

from pmc_jax.data import questions
from pmc_jax.data.overlap import plain
from pmc_jax.errors import UserError
from pmc_jax.evaluate.answers import truths


def row(question, answer="Me.", **more):
    return {"question": question, "answer": answer, **more}


FORGET = [row("Who wrote it?"), row("Where was she born?", "In Oslo.", paraphrased_question="What is her birthplace?")]
OTHER = [row("What is rain?", "Water.")]
APART = [
    ("the row itself", "Who wrote it?"),
    ("case", "WHO WROTE IT?"),
    ("white space", " Who  wrote\n\tit? "),
    ("punctuation", "Who wrote it"),
    ("quotes", "«Who wrote it?»"),
    ("wide letters", "Ｗｈｏ ｗｒｏｔｅ ｉｔ？"),
    ("a zero-width space", "Who wr\u200bote it?"),
    ("a no-break space", "Who\u00a0wrote it?"),
    ("the paraphrase", "What is her birthplace?"),
]


@pytest.mark.parametrize("question", [q for _, q in APART], ids=[name for name, _ in APART])
@pytest.mark.parametrize("name", ["retain", "world_facts"])
def test_a_forget_question_among_what_must_stay(small, question, name):
    kept = {name: [*OTHER, row(question)]}
    with pytest.raises(UserError, match=rf"^1 of 2 forget questions are also in the {name} data, first {name} row 2 "):
        questions.check_sets(small().data, FORGET, kept)
    assert questions.check_sets(small({"data.allow_overlap": True}).data, FORGET, kept) == ""


@pytest.mark.parametrize(
    "one, other",
    [("कि", "का"), ("What is C?", "What is C++?"), ("Résumé?", "Resume?"), ("1.5?", "2.5?"), ("東京?", "京都?")],
)
def test_questions_that_are_not_the_same(small, one, other):
    assert plain(one) != plain(other)
    assert questions.check_sets(small().data, [row(one)], {"retain": [row(other)]}) == ""


def test_letters_written_in_two_ways_are_the_same():
    assert plain("Re\u0301sume\u0301?") == plain("résumé") and plain("Straße") == plain("STRASSE")
    assert plain("?!") == "?!" != plain("??")


def test_a_question_with_two_answers(small):
    twice = [row("Who?"), row("Where?"), row("who ?", "You.")]
    with pytest.raises(UserError, match=r"^the forget data, rows 1 and 3: the same question \('who \?'\) with two"):
        questions.check_sets(small().data, twice, {})
    same = [row("Who?"), row("who?", "me"), row("Who?", ""), {"question": "Who?"}]
    assert questions.check_sets(small().data, same, {}) == ""


def test_a_paraphrase_that_is_the_question(small):
    own = [row("Who?", paraphrased_question="Which one?"), row("Where?", paraphrased_question=" where ")]
    with pytest.raises(
        UserError, match=r"in 1 of 2 rows 'paraphrased_question' is the question itself, first in row 2"
    ):
        questions.check_sets(small().data, own, {})


def test_the_same_long_answer_is_told_and_not_refused(small):
    secret = "She was born in the town of Oslo in winter."
    kept = {"retain": [row("Why?"), row("What about her?", secret.upper())]}
    note = questions.check_sets(small().data, [row("Where was she born?", secret)], kept)
    assert note.startswith("1 retain answers are word for word answers of forget rows") and "row 2" in note
    assert questions.check_sets(small().data, [row("Where?", "Oslo.")], {"retain": [row("What?", "Oslo.")]}) == ""


def test_paraphrases_of_a_split_of_their_own(small, tmp_path):
    from test_files import write_lines

    for name, rows in (
        ("forget10", [row("Who?")]),
        ("forget10_perturbed", [row("Who?", paraphrased_question="What is rain?", paraphrased_answer="Me.")]),
        ("retain90", OTHER),
    ):
        write_lines(tmp_path / f"{name}.jsonl", rows)
    data = small({"data.path": str(tmp_path), "data.forget": "forget10", "data.retain": "retain90"}).data
    with pytest.raises(UserError, match=r"1 of 1 forget questions are also in the retain data"):
        questions.load_evaluation(data, [row("Who?")], OTHER, 0, 0)


def test_one_row_without_a_paraphrase_leaves_the_others(small, tmp_path):
    from test_files import write_lines

    own = [row("Where?"), row("Who?", paraphrased_question="Which one?"), row("When?", paraphrased_question="")]
    file, kept = write_lines(tmp_path / "f.jsonl", own), write_lines(tmp_path / "r.jsonl", OTHER)
    data = small({"data.forget_file": str(file), "data.retain_file": str(kept)}).data
    sets = questions.load_evaluation(data, questions.load_forget(data), OTHER, 0, 0)
    assert sets["forget_paraphrased"] == [{"question": "Which one?", "answer": "Me.", "forget_row": 1}]
    bare = {name: [r | {"answer": None} for r in rows] for name, rows in sets.items()}
    texts, kind = truths(bare, ["a0", "a1", "a2"])
    assert texts["forget_paraphrased"] == ["a1"] and kind == "original answers"
