"""The yardstick's steps on the device: sampling, scoring and an update of benchmarks/yardstick.py, on a random model of
the same shape and with answers of the same lengths. A few batches are timed; benchmarks/gpu.py derives the whole run
from them.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from forced import END, Job, make_rows, make_tokenizer

BATCHES = 3  # the first one warms up


def forced_lengths(width: int, lengths_B: Any) -> Any:
    """A logits processor that lets row b end with its token number lengths_B[b], and not before. width: of the prompts.
    lengths_B: on the device.
    """
    import torch
    from transformers import LogitsProcessor

    class Forced(LogitsProcessor):
        def __call__(self, input_ids, scores):
            ends_B = lengths_B <= input_ids.shape[1] - width + 1
            scores = scores.masked_fill(ends_B[:, None], -torch.inf)
            scores[:, END] = torch.where(ends_B, 0.0, -torch.inf)
            return scores

    return Forced()


def make_model(job: Job, device: str) -> Any:
    """A random model, made on the device, in the precision of the published runs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = {k: v for k, v in job.raw.items() if k not in ("architectures", "eos_token_id", "bos_token_id")}
    config = AutoConfig.for_model(**raw, eos_token_id=END, pad_token_id=END)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = END
    return model


def settings_of(job: Job, yardstick: Any, size: int) -> Any:
    """The job's settings in the yardstick's words."""
    c = job.config
    preset = yardstick.PRESETS["llama"]
    names = dict(
        retain_weight=c.pmc.retain_weight,
        temperature=c.sample.temperature,
        num_samples=c.sample.num_samples,
        top_p=c.sample.top_p,
    )
    return replace(
        preset,
        **names,
        learning_rate=c.train.learning_rate,
        batch_size=size,
        max_length=c.train.max_length,
        epochs=c.train.epochs,
    )


def time_batches(job: Job, size: int, yardstick: Any, device: str) -> dict[str, Any]:
    """Seconds by phase of a batch of `size` questions, and what was drawn."""
    import torch
    from transformers import LogitsProcessorList

    tokenizer = make_tokenizer(job.raw["vocab_size"], job.assumed, chat=job.raw["model_type"] == "llama")
    model, settings = make_model(job, device), settings_of(job, yardstick, size)
    forget, retain = (make_rows(job, tokenizer.chat_template is not None, size * BATCHES, seed) for seed in (1, 2))
    adam, schedule = yardstick.optimizer(model, settings, job.assumed.questions // size)
    seconds, counts = Counter(), Counter()
    for batch in range(BATCHES):
        here = slice(batch * size, (batch + 1) * size)
        texts = [r["question"] for r in forget[here]]
        width = max(len(yardstick.prompt_ids(tokenizer, q)) for q in texts)
        lengths_B = np.random.default_rng(batch).permutation(
            job.assumed.lengths(job.longest, size * settings.num_samples)
        )
        forced = LogitsProcessorList([forced_lengths(width, torch.as_tensor(lengths_B, device=device))])
        options = dict(
            do_sample=True,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            logits_processor=forced,
        )
        marks = [time.perf_counter()]
        samples, tokens = yardstick.generate(
            model, tokenizer, texts, settings.max_length, settings.num_samples, **options
        )
        marks.append(time.perf_counter())
        picks = [
            min(answers, key=lambda a, r=row: yardstick.recall(r["answer"], a))
            for row, answers in zip(forget[here], samples)
        ]
        marks.append(time.perf_counter())
        pairs = [(r["question"], r["answer"]) for r in retain[here]]
        yardstick.update(model, tokenizer, adam, schedule, list(zip(texts, picks)), pairs, settings)
        marks.append(time.perf_counter())
        if batch:
            seconds.update(dict(zip(("sample", "score", "update"), np.diff(marks).tolist())))
            counts.update(batches=1, answers=size * settings.num_samples, tokens=tokens, update_rows=2 * size)
    return {"batch_size": size, "seconds": dict(seconds), "counts": dict(counts)}


def steps(job: Job, record: Callable[[str, Any], None]) -> None:
    """The yardstick at the published batch, or at the largest half of it that fits the device."""
    import torch
    import yardstick_parts as yardstick

    device = "cuda" if torch.cuda.is_available() else "cpu"
    record("device", device)
    record("versions", {"torch": torch.__version__})
    size, timed = job.config.train.batch_size, None
    while size and not timed:
        try:
            timed = time_batches(job, size, yardstick, device)
        except torch.OutOfMemoryError:
            size //= 2
    record("batches", timed or {"error": "out of memory with a single question"})
    record("peak_bytes", torch.cuda.max_memory_allocated() if device == "cuda" else None)
