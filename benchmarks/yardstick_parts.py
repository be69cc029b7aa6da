"""What the yardstick's loop is made of: rows, generation, evaluation and the update, plainly on torch and transformers.

`yardstick.py` says whose algorithm it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

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
    "smollm2": Settings(retain_weight=1.25, temperature=1.0, num_samples=5, epochs=8, learning_rate=3e-5),
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
    model, tokenizer, questions: list[str], max_length: int, num_samples: int = 1, **options
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
        **options,
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
