"""What is left of the secret, and of the rest, where the result of a run lies a part of the way back to its start.

    python benchmarks/interpolation.py WORKDIR [--shares=1,.9,.8]

WORKDIR holds a finished run of `pmc-jax unlearn` by PMC. Nothing in it is changed, and nothing is trained.

Prints, for each share of what training changed: the loss of the answers that the run kept, nats a token; content recall
of the forget answers; unlearn quality; utility.
"""

import argparse

import numpy as np
from pages import table

from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.prompts import training_row
from pmc_jax.evaluate.likelihood import token_scores
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.runs.export import restore_round
from pmc_jax.runs.unlearn import before_and_references, evaluate_on, load_data, with_retain_answers
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.workdir import Workdir
from pmc_jax.training.state import in_training


def loss(model: PretrainedModel, rows: list[Row]) -> float:
    """Nats a token of the rows' answers."""
    scores = token_scores(model.model, model.params, rows)
    return float(-np.mean(np.concatenate([score.log_probs for score in scores])))


def measured(workdir: str, shares: list[float]) -> list[list[str]]:
    """A row of the table for each share."""
    work = Workdir(workdir)
    config, start, recipe, _, state, notes = restore_round(workdir, None, {})
    data = with_retain_answers(work, start, config, load_data(config))
    _, references = before_and_references(work, start, config, data.sets)
    text = greedy_sampler(start, config).text
    kept = zip(data.forget, notes["memory"]["answers"])
    rows = [training_row(text, row["question"], answer, config.train.max_length, FORGET) for row, answer in kept]

    def told(share: float) -> list[str]:
        model = in_training(start, recipe, state, share)
        summary = evaluate_on(model, config, data.sets, references, f"share {share:g}").summary()
        recall = summary["content_recall"]["forget"]["mean"]
        quality = [f"{summary[name]:.1f}" for name in ("unlearn_quality", "utility")]
        return [f"{share:g}", f"{loss(model, rows):.3f}", f"{recall:.3f}", *quality]

    return [told(share) for share in shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--shares", default="1,.9,.8")
    options = parser.parse_args()
    rows = measured(options.workdir, [float(share) for share in options.shares.split(",")])
    print(table(["share", "loss of the kept answers", "content recall", "unlearn quality", "utility"], rows))


if __name__ == "__main__":
    main()
