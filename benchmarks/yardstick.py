"""The published algorithm of partial model collapse (PMC), written plainly on torch and transformers.

This is what pmc_jax is measured against, for speed and for quality: one sampling phase with `model.generate` inside
every update, rows padded to the full length, scores from the `rouge_score` package. The method: Scholten et al., ICLR
2026 (arXiv 2507.04219).

    python benchmarks/yardstick.py --checkpoint=DIR --data=DIR --preset=llama --out=yardstick.json
"""

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer
from yardstick_parts import PRESETS, Settings, evaluate, generate, greedy, optimizer, read_rows, recall, update


@contextmanager
def timed(seconds: Counter, phase: str):
    start = time.perf_counter()
    yield
    seconds[phase] += time.perf_counter() - start


class Run:
    """One run of the algorithm: the model, the data, and what has been measured so far.

    Attributes:
        seconds: by phase. `references` is the greedy pass for the original answers; `unlearn` = references + sample +
            score + update: everything but loading and evaluation.
        memory: {question: (score, answer)}, the best so far.
    """

    def __init__(self, checkpoint: str, data: str, settings: Settings):
        self.checkpoint, self.data, self.settings = checkpoint, Path(data), settings
        self.began, self.seconds, self.counts, self.log = time.perf_counter(), Counter(), Counter(), []
        self.memory: dict[int, tuple[float, str]] = {}
        order, self.draws = (torch.Generator().manual_seed(settings.seed + i) for i in (1, 2))
        with timed(self.seconds, "load"):
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
            self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
            self.model.to("cuda" if torch.cuda.is_available() else "cpu")
            self.questions = [row["question"] for row in read_rows(self.data, settings.forget)]
            self.retain = [(row["question"], row["answer"]) for row in read_rows(self.data, settings.retain)]
        # Questions that do not fill the last batch of an epoch wait for a later epoch.
        count = len(self.questions)
        self.loader = DataLoader(range(count), settings.batch_size, shuffle=True, drop_last=True, generator=order)
        whole = settings.epochs * len(self.loader)
        self.total = min(whole, settings.max_updates or whole)
        if self.total < 1:
            raise ValueError(f"nothing to do: {settings.epochs} epochs of {count} // {settings.batch_size} updates")
        self.adam, self.schedule = optimizer(self.model, settings, len(self.loader))

    def evaluate(self) -> dict[str, float] | None:
        """Quality as it is now; None where the settings leave it out."""
        with timed(self.seconds, "evaluate"):
            evaluated = self.settings.evaluate
            return evaluate(self.model, self.tokenizer, self.data, self.settings) if evaluated else None

    def pick_answers(self, batch: list[int], references: list[str]) -> tuple[dict[int, tuple[float, str]], int]:
        """Sample and score the unsolved questions of a batch.

        Returns:
            {question: (lowest score, its answer)}, and how many tokens were drawn.
        """
        s = self.settings
        unsolved = [q for q in batch if q not in self.memory or self.memory[q][0] > 0]
        if not unsolved:
            return {}, 0
        asked = [self.questions[q] for q in unsolved]
        with timed(self.seconds, "sample"):
            draw = dict(do_sample=True, temperature=s.temperature, top_k=s.top_k, top_p=s.top_p)
            samples, tokens = generate(self.model, self.tokenizer, asked, s.max_length, s.num_samples, **draw)
        with timed(self.seconds, "score"):
            scored = [[(recall(references[q], a), a) for a in answers] for q, answers in zip(unsolved, samples)]
        return {q: min(pairs, key=lambda pick: pick[0]) for q, pairs in zip(unsolved, scored)}, tokens

    def step(self, batch: list[int], references: list[str]) -> dict:
        """Sample, keep the best, update. Returns the line of the log."""
        picks, tokens = self.pick_answers(batch, references)
        memory = self.memory
        memory |= {q: pick for q, pick in picks.items() if q not in memory or pick[0] <= memory[q][0]}
        with timed(self.seconds, "update"):
            forget = [(self.questions[q], memory[q][1]) for q in batch]
            retain = [self.retain[i] for i in torch.randint(len(self.retain), (len(batch),), generator=self.draws)]
            losses = update(self.model, self.tokenizer, self.adam, self.schedule, forget, retain, self.settings)
        answers = len(picks) * self.settings.num_samples
        self.counts.update(updates=1, update_rows=2 * len(batch), answers=answers, answer_tokens=tokens)
        picked = [picks[q][0] if q in picks else 0.0 for q in batch]  # a solved question keeps its 0
        return {
            "picked_score": sum(picked) / len(batch),
            **losses,
            "stored_score": sum(memory[q][0] for q in batch) / len(batch),
            "sampled_questions": len(picks),
            "solved_questions": sum(score == 0 for score, _ in memory.values()),
        }

    def result(self, before: dict | None, after: dict | None) -> dict:
        """Everything that was measured, JSON-ready."""
        counts = self.counts
        return {
            "checkpoint": self.checkpoint,
            "settings": asdict(self.settings),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "before": before,
            "after": after,
            "seconds": dict(self.seconds),
            "updates": self.log,
            "counts": dict(counts) | {"tokens_per_answer": counts["answer_tokens"] / max(1, counts["answers"])},
            "memory": [
                {"question": self.questions[q], "score": score, "answer": answer}
                for q, (score, answer) in sorted(self.memory.items())
            ],
        }


def run(checkpoint: str, data: str, settings: Settings, on_progress=None, keep: str = "") -> dict:
    """Unlearn the forget questions.

    Args:
        checkpoint: folder of the model.
        data: TOFU-shaped folder.
        settings: all settings.
        on_progress: called after every update with (updates done, updates in all, line of the log).
        keep: where the unlearned checkpoint is written, off the clock; empty = nowhere.

    Returns:
        Quality before and after, seconds by phase, counts, and one log line an update.
    """
    this = Run(checkpoint, data, settings)
    before = this.evaluate()
    with timed(this.seconds, "references"):
        references = greedy(this.model, this.tokenizer, this.questions, settings)
    started = time.perf_counter()
    torch.manual_seed(settings.seed)  # generate draws from the global generator, and the evaluation has touched it
    batches = (batch.tolist() for _ in range(settings.epochs) for batch in this.loader)
    for done, batch in zip(range(1, this.total + 1), batches, strict=False):
        line = {"update": done} | this.step(batch, references) | {"seconds": time.perf_counter() - started}
        this.log.append(line)
        if on_progress:
            on_progress(done, this.total, line)
    this.seconds["unlearn"] = sum(this.seconds[phase] for phase in ("references", "sample", "score", "update"))
    after = this.evaluate()
    this.seconds["total"] = time.perf_counter() - this.began
    if keep:
        this.model.save_pretrained(keep)
        this.tokenizer.save_pretrained(keep)
    return this.result(before, after)


def show(done: int, total: int, line: dict):
    words = (
        "update {0}/{1}  score {picked_score:.3f}  forget {forget_loss:.3f}  retain {retain_loss:.3f}  {2:.0f} s left"
    )
    print(words.format(done, total, line["seconds"] / done * (total - done), **line), file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--data", required=True, help="TOFU-shaped folder of JSONL files")
    parser.add_argument("--preset", required=True, choices=PRESETS)
    for name in ("epochs", "max_updates", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--no_evaluate", dest="evaluate", action="store_false")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="write the unlearned checkpoint there")
    parser.add_argument("--out", help="JSON file for the result, which is also printed")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    names = "checkpoint", "data", "preset", "keep", "out"
    checkpoint, data, preset, keep, out = (given.pop(name, None) for name in names)
    for folder in (checkpoint, data):
        if not Path(folder).is_dir():
            parser.error(f"no such folder: {folder}")
    settings = replace(PRESETS[preset], **given)
    result = json.dumps(run(checkpoint, data, settings, show, keep), indent=1, ensure_ascii=False)
    print(result)
    if out:
        Path(out).write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
