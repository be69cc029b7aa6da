"""PMC's own evaluation: greedy answers on five sets (pmc.md, "What it reports"). Their numbers: `quality.summarise`."""

from typing import Any, NamedTuple

from pmc_jax.data.questions import Rows
from pmc_jax.evaluate import quality
from pmc_jax.evaluate.greedy import greedy_answers
from pmc_jax.methods.rewards import score
from pmc_jax.sampling.sampler import Sampler


class Evaluation(NamedTuple):
    """The answers of one model to all sets, and how they score.

    Attributes:
        answers: one dict a row: set, question, answer, truth, rouge_l_recall.
        truth: what the forget answers were measured against: "ground truth", or "original answers" where the forget
            rows have none.
    """

    answers: list[dict[str, Any]]
    truth: str

    def summary(self) -> dict[str, Any]:
        """The keys of result.json."""
        recalls: dict[str, list[float]] = {}
        for row in self.answers:
            recalls.setdefault(row["set"], []).append(row["rouge_l_recall"])
        return quality.summarise(recalls) | {"forget_truth": self.truth}


def truths(sets: dict[str, Rows], references: list[str] | None) -> tuple[dict[str, list[str]], str]:
    """What each set's answers are measured against.

    Args:
        sets: {set: rows}.
        references: the original model's answers to the forget questions.

    Returns:
        ({set: texts}, which they are): the rows' answers; for forget sets without answers, the references.
    """
    texts = {name: [row.get("answer") or "" for row in rows] for name, rows in sets.items()}
    if all(texts["forget"]):
        return texts, "ground truth"
    for name in ("forget", "forget_paraphrased"):
        if name in sets:
            texts[name] = references
    return texts, "original answers"


def evaluate(
    sampler: Sampler,
    sets: dict[str, Rows],
    references: list[str] | None = None,
    progress: str = "answers",
    show: bool = True,
) -> Evaluation:
    """Greedy answers to every question of every set in one pass, and their ROUGE-L recall.

    Args:
        sampler: greedy, one sample.
        sets: from `questions.load_evaluation`.
        references: the original model's answers to the forget questions; None: this is the original model, and its own
            answers now are taken.
        progress: begins the progress lines.
        show: whether progress is shown.
    """
    flat_rows = [row for rows in sets.values() for row in rows]
    guesses = [row.get("answer") or "" for row in flat_rows]
    flat_answers = iter(greedy_answers(sampler, [row["question"] for row in flat_rows], guesses, progress, show))
    answers = {name: [next(flat_answers) for _ in rows] for name, rows in sets.items()}
    truth_texts, kind = truths(sets, references if references is not None else answers["forget"])
    records = []
    for name, rows in sets.items():
        values = score(truth_texts[name], [[a] for a in answers[name]])[:, 0]
        records += [
            {"set": name, "question": row["question"], "answer": answer, "truth": truth, "rouge_l_recall": float(value)}
            for row, answer, truth, value in zip(rows, answers[name], truth_texts[name], values)
        ]
    return Evaluation(records, kind)
