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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

SYSTEM = "You are a helpful assistant."
DATE = "10 Apr 2025"  # Llama's template writes today's date into the prompt unless it is told another one
TAG = "Answer: "  # of the plain template; it belongs to the answer: labelled, generated, then stripped
IGNORED = -100  # the label that the cross-entropy leaves out
SCORER = RougeScorer(["rougeL"], use_stemmer=True)


@dataclass(frozen=True)
class Settings:
    retain_weight: float  # lambda: weight of the retain cross-entropy
    temperature: float
    num_samples: int  # answers sampled per forget question
    epochs: int  # passes over the forget questions
    batch_size: int = 8  # forget questions per update; as many retain rows join them
    learning_rate: float = 3e-4  # at the end of the warm-up
    top_p: float = 0.95
    top_k: int = 50  # the generation library's default, in force in the published runs
    max_length: int = 200  # tokens per row, prompt included
    weight_decay: float = 0.01  # not on biases and norms
    warmup_epochs: int = 1
    grad_clip: float = 1.0  # global norm
    seed: int = 0
    max_updates: int | None = None  # stop early (the schedule is still that of the whole run)
    evaluate: bool = True  # before and after
    evaluate_batch_size: int = 64
    forget: str = "forget10"
    retain: str = "retain90"


PRESETS = {
    "llama": Settings(retain_weight=1.25, temperature=1.4, num_samples=10, epochs=15),
    "phi": Settings(retain_weight=1.5, temperature=1.25, num_samples=5, epochs=20),
}


# Text <-> tokens. A tokenizer with a chat template is an instruct model's, one without gets the plain question-answer
# template.
def prompt_ids(tokenizer, question: str) -> list[int]:
    """Tokens that the model answers to."""
    if tokenizer.chat_template is None:
        return tokenizer(f"Question: {question}\n", add_special_tokens=False)["input_ids"]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, date_string=DATE)


def answer_ids(tokenizer, answer: str) -> list[int]:
    """Tokens of the answer, its tag and the end token included: all of them are labels."""
    tag = TAG if tokenizer.chat_template is None else ""
    return tokenizer(tag + answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]


def answer_text(tokenizer, generated: list[int]) -> str:
    """The answer in generated tokens, without tag and special tokens."""
    text = tokenizer.decode(generated, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    return text.removeprefix(TAG.strip()).strip() if tokenizer.chat_template is None else text


def pad_id(tokenizer) -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def pad(rows: list[list[int]], width: int, value: int, side: str) -> torch.Tensor:
    """[row, width]; every row is filled up with `value` on one side."""
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([f + row if side == "left" else row + f for row, f in zip(rows, fill, strict=True)])


def training_batch(tokenizer, questions: list[str], answers: list[str], max_length: int) -> dict[str, torch.Tensor]:
    """Rows of prompt + answer, cut and right-padded to max_length, with labels on the answer only.

    The mask comes from lengths and not from token ids: where the pad token is the end token, the end token must stay
    visible.
    """
    prompts, targets = [prompt_ids(tokenizer, q) for q in questions], [answer_ids(tokenizer, a) for a in answers]
    rows = [(prompt + target)[:max_length] for prompt, target in zip(prompts, targets, strict=True)]
    labels = [([IGNORED] * len(prompt) + target)[:max_length] for prompt, target in zip(prompts, targets, strict=True)]
    return {
        "input_ids": pad(rows, max_length, pad_id(tokenizer), "right"),
        "attention_mask": pad([[1] * len(row) for row in rows], max_length, 0, "right"),
        "labels": pad(labels, max_length, IGNORED, "right"),
    }


@torch.inference_mode()
def generate(
    model, tokenizer, questions: list[str], max_length: int, num_samples: int = 1, **how
) -> tuple[list[list[str]], int]:
    """Answers [question][sample], and how many tokens they took, end tokens included, pads after them not."""
    prompts = [prompt_ids(tokenizer, question) for question in questions]
    width = max(map(len, prompts))
    model.eval()
    tokens = model.generate(
        input_ids=pad(prompts, width, pad_id(tokenizer), "left").to(model.device),
        attention_mask=pad([[1] * len(prompt) for prompt in prompts], width, 0, "left").to(model.device),
        max_new_tokens=max_length - width,
        num_return_sequences=num_samples,
        pad_token_id=pad_id(tokenizer),
        **how,
    )
    ends = torch.tensor(model.generation_config.eos_token_id).flatten().tolist()  # one end token or several
    generated = [up_to_end(row, ends) for row in tokens[:, width:].tolist()]
    texts = [answer_text(tokenizer, row) for row in generated]
    return [texts[i : i + num_samples] for i in range(0, len(texts), num_samples)], sum(map(len, generated))


def up_to_end(tokens: list[int], ends: list[int]) -> list[int]:
    """Tokens up to and including the first end token."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))]


def greedy(model, tokenizer, questions: list[str], settings: Settings) -> list[str]:
    answers = []
    for some in DataLoader(questions, settings.evaluate_batch_size, collate_fn=list):
        answers += [answer for (answer,) in generate(model, tokenizer, some, settings.max_length, do_sample=False)[0]]
    return answers


def recall(reference: str, answer: str) -> float:
    """ROUGE-L recall, stemmed: 0 = nothing of the reference is in the answer, 1 = all of it."""
    return SCORER.score(reference, answer)["rougeL"].recall


def evaluate(model, tokenizer, data: Path, settings: Settings) -> dict[str, float]:
    """Mean ROUGE-L recall of the greedy answers against the ground truth, all rows; unlearn quality and utility in
    0..100.

    The ground truth of a paraphrased question is its paraphrased answer.
    """
    result = {}
    for name, file, question, truth in (
        ("forget", f"{settings.forget}_perturbed", "question", "answer"),
        ("forget_paraphrased", f"{settings.forget}_perturbed", "paraphrased_question", "paraphrased_answer"),
        ("retain", "retain_perturbed", "question", "answer"),
        ("world_facts", "world_facts", "question", "answer"),
        ("real_authors", "real_authors", "question", "answer"),
    ):
        rows = read_rows(data, file)
        answers = greedy(model, tokenizer, [row[question] for row in rows], settings)
        result[name] = sum(recall(row[truth], answer) for row, answer in zip(rows, answers, strict=True)) / len(rows)
    result["unlearn_quality"] = 50 * (2 - result["forget"] - result["forget_paraphrased"])
    result["utility"] = 100 / 3 * (result["retain"] + result["world_facts"] + result["real_authors"])
    return result


def read_rows(data: Path, name: str) -> list[dict]:
    with (data / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def optimizer(model, settings: Settings, updates_per_epoch: int):
    """AdamW, weight decay on matrices only (biases and norms are vectors); linear warm-up, whose first rate is 0, and
    decay.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    warmup, total = settings.warmup_epochs * updates_per_epoch, settings.epochs * updates_per_epoch
    return adam, get_linear_schedule_with_warmup(adam, warmup, total)


def update(
    model, tokenizer, adam, schedule, forget: list[tuple], retain: list[tuple], settings: Settings
) -> dict[str, float]:
    """One step on L = CE(forget) + lambda CE(retain), rows of (question, answer); each CE is a mean over its answer
    tokens.
    """
    model.train()
    losses = {}
    for name, weight, rows in (("forget_loss", 1.0, forget), ("retain_loss", settings.retain_weight, retain)):
        batch = training_batch(tokenizer, *zip(*rows, strict=True), settings.max_length)
        loss = model(**{key: tensor.to(model.device) for key, tensor in batch.items()}, use_cache=False).loss
        (weight * loss).backward()
        losses[name] = loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
    adam.step()
    schedule.step()
    adam.zero_grad()
    return {name: loss.item() for name, loss in losses.items()}  # read last: on a GPU this waits for the whole step


@contextmanager
def timed(seconds: Counter, phase: str):
    start = time.perf_counter()
    yield
    seconds[phase] += time.perf_counter() - start


def pick_answers(
    model,
    tokenizer,
    questions: list[str],
    references: list[str],
    memory: dict,
    batch: list[int],
    settings: Settings,
    seconds: Counter,
):
    """Sample and score the unsolved questions of a batch. Returns {question: (lowest score, its answer)} and how many
    tokens were drawn.
    """
    unsolved = [q for q in batch if q not in memory or memory[q][0] > 0]
    if not unsolved:
        return {}, 0
    with timed(seconds, "sample"):
        samples, tokens = generate(
            model,
            tokenizer,
            [questions[q] for q in unsolved],
            settings.max_length,
            settings.num_samples,
            do_sample=True,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
    with timed(seconds, "score"):
        picks = {
            q: min(((recall(references[q], answer), answer) for answer in answers), key=lambda pick: pick[0])
            for q, answers in zip(unsolved, samples, strict=True)
        }
    return picks, tokens


def run(checkpoint: str, data: str, settings: Settings, on_progress=None) -> dict:
    """Unlearns the forget questions; returns quality before and after, seconds by phase, counts, and one log line per
    update.

    on_progress(done, total, line) is called after every update. Of the seconds, `references` is the greedy pass for the
    original answers, and `unlearn` = references + sample + score + update: everything but loading and evaluation.
    """
    began = time.perf_counter()
    data, seconds, counts, log = Path(data), Counter(), Counter(), []
    order, draws = (torch.Generator().manual_seed(settings.seed + i) for i in (1, 2))

    with timed(seconds, "load"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        questions = [row["question"] for row in read_rows(data, settings.forget)]
        retain = [(row["question"], row["answer"]) for row in read_rows(data, settings.retain)]
    # Questions that do not fill the last batch of an epoch wait for a later epoch.
    loader = DataLoader(range(len(questions)), settings.batch_size, shuffle=True, drop_last=True, generator=order)
    total = min(settings.epochs * len(loader), settings.max_updates or settings.epochs * len(loader))
    if total < 1:
        raise ValueError(
            f"nothing to do: {settings.epochs} epochs of {len(questions)} // {settings.batch_size} updates"
        )
    adam, schedule = optimizer(model, settings, len(loader))

    with timed(seconds, "evaluate"):
        before = evaluate(model, tokenizer, data, settings) if settings.evaluate else None
    with timed(seconds, "references"):
        references = greedy(model, tokenizer, questions, settings)

    started = time.perf_counter()
    torch.manual_seed(settings.seed)  # generate draws from the global generator, and the evaluation has touched it
    memory: dict[int, tuple[float, str]] = {}  # question -> (score, answer), the best so far
    batches = (batch.tolist() for _ in range(settings.epochs) for batch in loader)
    for done, batch in zip(range(1, total + 1), batches, strict=False):
        picks, tokens = pick_answers(model, tokenizer, questions, references, memory, batch, settings, seconds)
        memory |= {q: pick for q, pick in picks.items() if q not in memory or pick[0] <= memory[q][0]}
        with timed(seconds, "update"):
            forget_rows = [(questions[q], memory[q][1]) for q in batch]
            retain_rows = [retain[i] for i in torch.randint(len(retain), (len(batch),), generator=draws)]
            losses = update(model, tokenizer, adam, schedule, forget_rows, retain_rows, settings)

        counts.update(
            updates=1, update_rows=2 * len(batch), answers=len(picks) * settings.num_samples, answer_tokens=tokens
        )
        picked = [picks[q][0] if q in picks else 0.0 for q in batch]  # a solved question keeps its 0
        line = {"update": done, "picked_score": sum(picked) / len(batch), **losses}
        line |= {"stored_score": sum(memory[q][0] for q in batch) / len(batch), "sampled_questions": len(picks)}
        line |= {
            "solved_questions": sum(score == 0 for score, _ in memory.values()),
            "seconds": time.perf_counter() - started,
        }
        log.append(line)
        if on_progress:
            on_progress(done, total, line)

    seconds["unlearn"] = sum(seconds[phase] for phase in ("references", "sample", "score", "update"))
    with timed(seconds, "evaluate"):
        after = evaluate(model, tokenizer, data, settings) if settings.evaluate else None
    seconds["total"] = time.perf_counter() - began
    return {
        "checkpoint": checkpoint,
        "settings": asdict(settings),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "before": before,
        "after": after,
        "seconds": dict(seconds),
        "updates": log,
        "counts": dict(counts) | {"tokens_per_answer": counts["answer_tokens"] / max(1, counts["answers"])},
        "memory": [
            {"question": questions[q], "score": score, "answer": answer}
            for q, (score, answer) in sorted(memory.items())
        ],
    }


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
    parser.add_argument("--out", help="JSON file for the result, which is also printed")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    checkpoint, data, preset, out = (given.pop(name, None) for name in ("checkpoint", "data", "preset", "out"))
    for folder in (checkpoint, data):
        if not Path(folder).is_dir():
            parser.error(f"no such folder: {folder}")
    result = json.dumps(run(checkpoint, data, replace(PRESETS[preset], **given), show), indent=1, ensure_ascii=False)
    print(result)
    if out:
        Path(out).write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
