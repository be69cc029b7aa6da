"""What the agreement of sampled answers says of a model's knowledge: questions with known answers, those that would be
kept for a topic against those that would be dropped (docs/results.md).

    python benchmarks/agreement.py [--model=FILE_OR_FOLDER] [--samples=FILE.json]

The questions are those of pmc_jax/data/real with answers by hand. An answer is right when it holds at least half of the
true answer's content words. `--samples` keeps the sampled answers, and reads them where they are kept.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pages import table

from pmc_jax.data.topic import shipped
from pmc_jax.methods.rouge import rouge_l_f1, rouge_tokens
from pmc_jax.methods.similarity import content_recall
from pmc_jax.methods.topic import agreement
from pmc_jax.runs.presets import load_preset

SETS = ("forget", "real_authors", "world_facts")
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25)
HALF = 0.5


def sample(model: str, questions: list[str]) -> list[list[str]]:
    """Answers as the rounds of the preset `topic` sample them, but of 48 tokens."""
    import pmc_jax

    config = load_preset("topic")
    s = config.sample
    checkpoint = pmc_jax.load(model or load_preset("real").model.path)
    options = dict(num_samples=s.num_samples, temperature=s.temperature, top_p=s.top_p, top_k=s.top_k)
    return pmc_jax.sample(checkpoint, questions, **options, max_new_tokens=48, config=config)


def mean_rouge(answers: list[str]) -> float:
    """Mean ROUGE-L F1 of all pairs, for comparison."""
    tokens = [rouge_tokens(answer) for answer in answers]
    return float(np.mean([rouge_l_f1(a, b) for i, a in enumerate(tokens) for b in tokens[:i]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--samples", default="")
    options = parser.parse_args()
    rows = [row for name in SETS for row in shipped(name)]
    questions, kept = [row["question"] for row in rows], Path(options.samples)
    if options.samples and kept.exists():
        samples = json.loads(kept.read_text(encoding="utf-8"))
    else:
        samples = sample(options.model, questions)
        if options.samples:
            kept.write_text(json.dumps(samples), encoding="utf-8")
    right_Q = np.array(
        [np.mean([content_recall(r["question"], r["answer"], a) >= HALF for a in own]) for r, own in zip(rows, samples)]
    )
    agreed_Q = np.array([agreement(question, own) for question, own in zip(questions, samples)])
    rouge_Q = np.array([mean_rouge(own) for own in samples])
    print(f"{len(rows)} questions; right samples {right_Q.mean():.3f}; correlation with the share of right samples: ")
    print(
        f"content recall {np.corrcoef(agreed_Q, right_Q)[0, 1]:.3f}, ROUGE-L {np.corrcoef(rouge_Q, right_Q)[0, 1]:.3f}"
    )
    lines = []
    for threshold in THRESHOLDS:
        above_Q = agreed_Q >= threshold
        shares = [f"{right_Q[side].mean():.2f}" if side.any() else "-" for side in (above_Q, ~above_Q)]
        lines.append([str(threshold), str(above_Q.sum()), *shares])
    print(table(["data.topic_agreement", "kept", "right samples, kept", "right samples, dropped"], lines))


if __name__ == "__main__":
    main()
