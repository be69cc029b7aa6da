"""What scoring costs: CPU milliseconds an answer for every reward, on answers about made-up authors.

    python benchmarks/rewards.py

`repeat` answers a question hold words of the reference and of other references, as sampled answers do. Stemmers are
warm, as they are after a run's first round.
"""

import argparse
import time

import numpy as np
from pages import table

from pmc_jax.data.authors import make_authors
from pmc_jax.methods.rewards import REWARDS, Reward


def drawn_answers(references: list[str], repeat: int) -> list[list[str]]:
    """For each reference, answers of about its length: its own words mixed with those of others."""
    rng = np.random.default_rng(0)
    words = [reference.split() for reference in references]
    everything = [word for reference in words for word in reference]
    answers = []
    for own in words:
        kept = rng.random((repeat, len(own))) < 0.5
        others = rng.choice(everything, (repeat, len(own)))
        answers.append([" ".join(np.where(k, own, o)) for k, o in zip(kept, others)])
    return answers


def milliseconds(reward: Reward, questions: list[str], references: list[str], answers: list[list[str]]) -> float:
    """The best of three times to score all answers, an answer; a token reward is given one token id a word."""
    if reward.reads == "tokens":
        ids: dict[str, int] = {}
        references = [[ids.setdefault(w, len(ids)) for w in r.split()] for r in references]
        answers = [[[ids.setdefault(w, len(ids)) for w in a.split()] for a in samples] for samples in answers]
    prepared = [reward.prepare(r, q) for r, q in zip(references, questions)]
    reward.score(prepared, answers)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        reward.score(prepared, answers)
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds) / sum(map(len, answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=20, help="answers a question")
    options = parser.parse_args()
    num_authors = -(-options.questions // 4)
    splits = make_authors(num_authors=num_authors, questions_per_author=4, forget_percent=20, seed=0)
    rows = splits["full"][: options.questions]
    questions, references = [row["question"] for row in rows], [row["answer"] for row in rows]
    answers = drawn_answers(references, options.repeat)
    words = np.mean([len(reference.split()) for reference in references])
    print(f"{len(rows)} questions, {options.repeat} answers each, {words:.0f} words an answer")
    costs = {name: milliseconds(reward, questions, references, answers) for name, reward in REWARDS.items()}
    print(table(["pmc.reward", "ms an answer"], [[f"`{name}`", f"{cost:.3f}"] for name, cost in costs.items()]))


if __name__ == "__main__":
    main()
