"""PMC's own evaluation: greedy answers on five sets (pmc.md, "What it reports"). Their numbers: `quality.summarise`."""

from typing import Any, NamedTuple

import numpy as np

from pmc_jax.data.questions import Rows
from pmc_jax.evaluate import quality
from pmc_jax.evaluate.fluency import median_perplexity
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.evaluate.recall import CONTENT, ROUGE, check_texts_seen, greedy_recall, mean_recall
from pmc_jax.methods.rouge import share_seen
from pmc_jax.sampling.sampler import Sampler

GIVEN, ORIGINAL = "ground truth", "original answers"
SAW = {"truth": "rouge_saw_truth", "answer": "rouge_saw_answer"}  # text -> key of the share that ROUGE saw of it


class Evaluation(NamedTuple):
    """The answers of one model to all sets, and how they score.

    Attributes:
        answers: one dict a row: set, question, answer, truth, rouge_l_recall, content_recall (None where there is
            nothing to count), and the shares of the letters and digits of truth and answer that ROUGE saw,
            rouge_saw_truth and rouge_saw_answer (None where there are none). Where the original model was at hand,
            forget rows have the answer's perplexity under it.
        truth: what the forget answers were measured against: GIVEN, rows without an answer left out, or ORIGINAL where
            no forget row has an answer.
        score: which recall unlearn quality and utility are made of.
    """

    answers: list[dict[str, Any]]
    truth: str
    score: str = ROUGE

    def values(self, key: str) -> dict[str, np.ndarray]:
        """A key of the rows by set, float64 [N] each; NaN where it is None."""
        by_set: dict[str, list[Any]] = {}
        for row in self.answers:
            by_set.setdefault(row["set"], []).append(row[key])
        return {name: np.array(values, np.float64) for name, values in by_set.items()}

    def summary(self) -> dict[str, Any]:
        """The keys of result.json."""
        recalls, contents = self.values(self.score), self.values(CONTENT)
        perplexity = [row["perplexity"] for row in self.answers if "perplexity" in row]
        saw = {text: self.values(key) for text, key in SAW.items()}
        return quality.summarise(recalls) | {
            "forget_truth": self.truth,
            "score": self.score,
            "of": {name: len(recall_N) for name, recall_N in recalls.items()},
            "content_recall": {name: mean_recall(c_N, quality.SETS[name]) for name, c_N in contents.items()},
            "rouge_saw": {name: {text: finite_mean(saw[text][name]) for text in SAW} for name in recalls},
            **({"forget_perplexity": median_perplexity(perplexity)} if perplexity else {}),
        }


def finite_mean(values_N: np.ndarray) -> float | None:
    """The mean of the rows that have a value; None where none has."""
    finite_N = values_N[np.isfinite(values_N)]
    return float(finite_N.mean()) if len(finite_N) else None


def truths(sets: dict[str, Rows], references: list[str] | None) -> tuple[dict[str, list[str]], str]:
    """What each set's answers are measured against.

    Args:
        sets: {set: rows}.
        references: the original model's answers to the forget questions.

    Returns:
        ({set: texts}, which they are): the rows' answers, "" for a row without; for forget sets of which no row has an
        answer, the references.
    """
    texts = {name: [row.get("answer") or "" for row in rows] for name, rows in sets.items()}
    if any(texts["forget"]):
        return texts, GIVEN
    for name in ("forget", "forget_paraphrased"):
        if name in sets:
            texts[name] = [references[row.get("forget_row", i)] for i, row in enumerate(sets[name])]
    return texts, ORIGINAL


def evaluate(
    sampler: Sampler,
    sets: dict[str, Rows],
    references: list[str] | None = None,
    progress: str = "answers",
    show: bool = True,
    score: str = ROUGE,
) -> Evaluation:
    """Greedy answers to every question of every set in one pass, and their recall.

    Args:
        sampler: greedy, one sample.
        sets: from `questions.load_evaluation`.
        references: the original model's answers to the forget questions; None: this is the original model, and its own
            answers now are taken.
        progress: begins the progress lines.
        show: whether progress is shown.
        score: which recall unlearn quality and utility are made of, the setting `evaluate.score`.

    Raises:
        UserError: the forget rows have no answers, and the score cannot see the original ones.
    """
    flat_rows = [row for rows in sets.values() for row in rows]
    guesses = [row.get("answer") or "" for row in flat_rows]
    flat_answers = iter(greedy_answers(sampler, [row["question"] for row in flat_rows], guesses, progress, show))
    answers = {name: [next(flat_answers) for _ in rows] for name, rows in sets.items()}
    truth_texts, kind = truths(sets, references if references is not None else answers["forget"])
    if kind == ORIGINAL:
        check_texts_seen(
            score, "the model's answer, forget", [r["question"] for r in sets["forget"]], truth_texts["forget"]
        )
    records = [record for name, rows in sets.items() for record in scored(name, rows, answers[name], truth_texts[name])]
    return Evaluation(records, kind, score)


def scored(name: str, rows: Rows, answers: list[str], truth_texts: list[str]) -> list[dict[str, Any]]:
    """The answers to one set with their scores, as `Evaluation` has them."""
    questions = [row["question"] for row in rows]
    recalls = [greedy_recall(score, questions, truth_texts, answers) for score in (ROUGE, CONTENT)]
    return [
        {"set": name, "question": question, "answer": answer, "truth": truth}
        | {key: None if np.isnan(value) else float(value) for key, value in zip((ROUGE, CONTENT), values)}
        | {SAW["truth"]: share_seen(truth), SAW["answer"]: share_seen(answer)}
        for question, answer, truth, *values in zip(questions, answers, truth_texts, *recalls)
    ]
