"""The yardstick's job done by pmc_jax, with the same presets and the same keys in the result. Nothing is taken from a
compilation cache.

    python benchmarks/ours.py --checkpoint=DIR --data=DIR --preset=llama --out=ours.json

Other settings than the preset's, to see what they change: --set pmc.questions_per_round=8 (the published algorithm)
--set train.accumulate=1
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PRESETS = {
    "llama": dict(retain_weight=1.25, temperature=1.4, num_samples=10, epochs=15, learning_rate=3e-4),
    "phi": dict(retain_weight=1.5, temperature=1.25, num_samples=5, epochs=20, learning_rate=3e-4),
    "smollm2": dict(retain_weight=1.25, temperature=1.0, num_samples=5, epochs=8, learning_rate=3e-5),
}


def make_config(checkpoint: str, data: str, preset: str, seed: int, changes: dict[str, Any] | None = None):
    """The preset as a pmc_jax config: batch 8, top-p .95, top-k 50, warm-up of one epoch, float32; a round of all
    questions.

    changes: settings that are to be others."""
    from pmc_jax import config as settings

    config, chosen = settings.default(), PRESETS[preset]
    config.model.path, config.data.path, config.seed = checkpoint, data, seed
    config.pmc.retain_weight, config.pmc.questions_per_round = chosen["retain_weight"], 0
    config.sample.temperature, config.sample.num_samples = chosen["temperature"], chosen["num_samples"]
    config.train.epochs, config.train.batch_size = chosen["epochs"], 8
    config.train.learning_rate = chosen["learning_rate"]
    return settings.changed(config, changes or {})


def count(config, questions: int, history: list[dict]) -> dict[str, int]:
    """What a run has done."""
    epochs = config.train.epochs
    return {
        "updates": epochs * -(-questions // config.train.batch_size),
        "update_rows": 2 * epochs * questions,
        "answers": sum(h["sampled_questions"] for h in history) * config.sample.num_samples,
        "answer_tokens": sum(h["sampled_tokens"] for h in history),
    }


def run(
    checkpoint: str, data: str, preset: str, seed: int = 0, keep: str = "", changes: dict[str, Any] | None = None
) -> dict:
    """Evaluate, unlearn (each round saved to a scratch folder, as a real run does), evaluate.

    keep: where the unlearned checkpoint is written, off the clock; empty = nowhere.

    Returns quality, seconds by phase, counts and the history."""
    from nltk.stem import porter  # noqa: F401  what the yardstick imports, at its top, before its clock runs: several seconds where there is no bytecode

    import pmc_jax
    from pmc_jax.data import questions
    from pmc_jax.runs import unlearn
    from pmc_jax.tracking.timing import Clock
    from pmc_jax.training.checkpoint import RoundCheckpointer

    config = make_config(checkpoint, data, preset, seed, changes)
    forget, retain = questions.load_forget(config.data), questions.load_retain(config.data)
    sets = questions.load_evaluation(config.data, forget, retain, 0, seed)
    model = pmc_jax.load(checkpoint)
    whole: list[int] = []  # tokens of the answers that were drawn to their end whatever they held

    def on_round(summary, seen, updates):
        if summary["reward_mean"] is not None:
            whole.extend(s["tokens"][0] for s in seen)
        words = (
            "round {round}  score {stored_score:.3f}  solved {solved:.2f}  forget {forget_loss:.3f}  retain "
            "{retain_loss:.3f}"
        )
        print(words.format(**summary), file=sys.stderr, flush=True)

    start = time.perf_counter()
    before = unlearn.evaluate_on(model, config, sets, None, "before", show=False)
    references = [a["answer"] for a in before.answers if a["set"] == "forget"]
    evaluated = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, Clock() as clock:
        rounds = RoundCheckpointer(folder, keep=2)
        unlearned, history = pmc_jax.unlearn(
            model, forget, retain, config, references=references, rounds=rounds, clock=clock, on_round=on_round
        )
        with clock.phase("save"):
            rounds.close()
    seconds = dict(clock.seconds)
    seconds["unlearn"] = sum(seconds[phase] for phase in ("compile", "sample", "score", "update", "save"))
    start = time.perf_counter()
    after = unlearn.evaluate_on(unlearned, config, sets, None, "after", show=False)
    seconds["evaluate"] = evaluated + time.perf_counter() - start
    if keep:
        pmc_jax.export(unlearned, keep)
    counts = count(config, len(forget), history) | {"tokens_per_answer": sum(whole) / len(whole)}
    summaries = {"before": before.summary(), "after": after.summary()}
    return summaries | {"seconds": seconds, "counts": counts, "history": history}


def read_change(text: str) -> tuple[str, Any]:
    """NAME=JSON as (name, value). ValueError, which argparse tells the user, where it is not so."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--data", required=True, help="TOFU-shaped folder of JSONL files")
    parser.add_argument("--preset", required=True, choices=PRESETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default="", metavar="FOLDER", help="write the unlearned checkpoint there")
    parser.add_argument("--out", help="JSON file for the result, which is also printed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=read_change,
        metavar="NAME=JSON",
        help="a setting, as train.accumulate=1; may be repeated",
    )
    given = vars(parser.parse_args())
    out, changes = given.pop("out"), dict(given.pop("set"))
    result = json.dumps(run(**given, changes=changes), indent=1)
    print(result)
    if out:
        Path(out).write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
