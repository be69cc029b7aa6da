"""The parts of benchmarks/gpu.py that run on the device: single steps, whole rounds, whole runs. Each is run in a
process of its own.

A part is a function (job, record): it hands over each figure as soon as it has it, so that a part that is cut off
leaves what it had.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from forced import Job, make_checkpoint, make_rows
from steps import decode_step, seconds, typical_batch, updating

import pmc_jax
from pmc_jax.distributed import meshes
from pmc_jax.plan import roofline
from pmc_jax.sampling import buckets, engine
from pmc_jax.sampling import decode as programs
from pmc_jax.sampling.generate import round_generator
from pmc_jax.tracking.timing import Clock
from pmc_jax.training import loop, losses

Record = Callable[[str, Any], None]
STEP = 40  # answer tokens that rows have in the middle of the decode steps that are timed (steps.py)
WIDER = (
    2**29
)  # float32 logits at once in the loss, tried beside the project's own number: one or two chunks in place of dozens
# about the fewest of a published batch: with a vocabulary that fits them into the project's number there is nothing to
# try
LABELS = 512


def errors(record: Record, name: str, measure: Callable[[], Any]) -> None:
    """Record what is measured, or why it could not be: one figure that fails must not take the others with it."""
    try:
        record(name, measure())
    except Exception as error:  # out of memory, a compiler's refusal: whatever it is, it is written down
        record(name, {"error": f"{type(error).__name__}: {str(error).strip()[:500]}"})


def peak_bytes() -> int | None:
    """The most bytes this process has held on the device; None where the device does not count them (a CPU)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def device(job: Job, record: Record, small: bool) -> None:
    """The machine, and its two ceilings as a large product and a large copy reach them."""
    here = jax.devices()[0]
    record("kind", here.device_kind)
    record("platform", here.platform)
    record("memory_bytes", (here.memory_stats() or {}).get("bytes_limit"))
    record("versions", {"jax": jax.__version__, "pmc_jax": pmc_jax.__version__})
    side, size, dtype = (512, 2**18, "float32") if small else (8192, 2**30, "bfloat16")

    def product():
        x, y = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
        multiply = jax.jit(jnp.matmul)
        return 10 * 2 * side**3 / seconds(lambda: [multiply(x, y) for _ in range(10)])

    def copy():
        x, add = jax.random.normal(jax.random.key(0), (size,), dtype), jax.jit(lambda x: x + 1)
        return 10 * 2 * x.nbytes / seconds(lambda: [add(x) for _ in range(10)])

    errors(record, "product_flops_per_second", product)
    errors(record, "copy_bytes_per_second", copy)


def work(of: roofline.Work, **more: Any) -> dict[str, Any]:
    return {"flops": of.flops, "bytes": of.bytes} | more


def decode(checkpoint: Any, job: Job, forget: list, rows: int) -> dict[str, Any]:
    """One decode step of so many rows. The bound counts the tokens there are, not the slots."""
    questions = rows // job.samples
    found = decode_step(checkpoint, job.config, forget, questions, job.samples)
    least = roofline.decode_work(checkpoint.model, rows, STEP, questions, job.assumed.prompt, itemsize(checkpoint))
    return work(least, rows=rows, seconds=found["seconds"])


def prefill(checkpoint: Any, job: Job, forget: list) -> dict[str, Any]:
    """Reading the prompts of one batch of a round, with answers as drafts, and drawing each row's tokens along them."""
    s = job.config.sample
    generator = round_generator(checkpoint, job.config)
    asked, drafts = (
        [generator.text.prompt(r["question"]) for r in forget],
        [generator.text.answer(r["answer"]) for r in forget],
    )
    mesh = meshes.mesh_of(checkpoint.params)
    limits = engine.device_limits(mesh)
    whole = engine.left_pad(asked, [r["question"] for r in forget], multiple=8)
    whole = engine.with_drafts(whole, drafts, generator.text.end_tokens, s.max_new_tokens)
    width, draft = whole.tokens_QP.shape[1], whole.drafts_QA.shape[1]
    plan = buckets.cut_batches(len(forget), width + draft - 1, s.num_samples, s.max_rows, 1, limits)
    prompts = engine.Prompts(*(x[: plan.size] for x in whole))
    count = len(prompts.keys_Q)
    inputs = meshes.put((prompts, np.ones(count, bool)), meshes.rows(mesh))
    uniform_BA2 = meshes.put(
        engine.row_uniforms(prompts.keys_Q, 0, 0, s.num_samples, draft)[:, :draft], meshes.rows(mesh)
    )
    how = dict(
        sampling=generator.sampling,
        end_tokens=generator.text.end_tokens,
        num_samples=s.num_samples,
        shards=1,
        parts=plan.parts,
    )
    slots = buckets.batch_buckets(plan.rows, 1, s.max_new_tokens, limits, s.num_samples, drafted=True)[0].slots
    took = seconds(
        lambda: programs.prefill(checkpoint.model, generator.params, *inputs, uniform_BA2, first_slots=slots, **how)
    )
    drawn_from = int(np.sum(prompts.drafts_QA[:, :-1] >= 0)) + count
    tokens = int(np.sum(prompts.mask_QP)) + drawn_from - count
    least = roofline.prefill_work(checkpoint.model, tokens, drawn_from, itemsize(checkpoint))
    return work(least, prompts=count, tokens=tokens, width=width + draft - 1, rows=plan.rows, seconds=took)


def update(checkpoint: Any, job: Job, forget: list, retain: list, logits: int) -> dict[str, Any]:
    """One update of a batch as a round has them: the bound is of its real tokens and labels. logits: alive at once in
    the loss.
    """
    typical = typical_batch(checkpoint, job.config, forget, retain)
    run = updating(checkpoint, loop.make_recipe(job.config, len(forget)), typical.batch)
    jax.clear_caches()  # the number is read when the loss is traced
    with mock.patch.object(losses, "LOGITS_AT_ONCE", logits):
        took = seconds(run)
    rows, labels, real = len(typical.rows), sum(len(r.tokens) - r.start for r in typical.rows), typical.real_positions
    shape = dict(
        rows=rows,
        positions=typical.positions,
        real_positions=real,
        labels=labels,
        micro_batches=int(typical.batch.used),
    )
    return work(
        roofline.update_work(checkpoint.model, real, labels, itemsize(checkpoint)),
        seconds=took,
        rows_per_second=rows / took,
        **shape,
    )


def itemsize(checkpoint: Any) -> int:
    return jax.tree.leaves(checkpoint.params)[0].dtype.itemsize


def steps(job: Job, record: Record) -> None:
    """Single steps: decode at several sizes, prefill, update."""
    checkpoint = make_checkpoint(job)
    chat = checkpoint.tokenizer.chat_template is not None
    record("parameters", sum(x.size for x in jax.tree.leaves(checkpoint.params)))
    forget, retain = make_rows(job, chat, job.assumed.questions, 1), make_rows(job, chat, job.retain, 2)
    for rows in sorted(job.rows, key=lambda rows: rows != 512):
        errors(record, f"decode_{rows}", lambda rows=rows: decode(checkpoint, job, forget, rows))
    errors(record, "prefill", lambda: prefill(checkpoint, job, forget))
    errors(record, "update", lambda: update(checkpoint, job, forget, retain, losses.LOGITS_AT_ONCE))
    if checkpoint.config.vocab_size * LABELS > losses.LOGITS_AT_ONCE:
        errors(record, "update_wider_loss", lambda: update(checkpoint, job, forget, retain, WIDER))
    record("peak_bytes", peak_bytes())


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts, while it is open, the programs that are compiled and the rows x steps that the sampler decodes (the step
    that prefill takes included).

    Chunks are aligned, so that one which ends at `last` began at the multiple of CHUNK before it: in the last chunk of
    a batch all rows may be done earlier, and a few steps too many are counted.
    """
    counts = {"compiled": 0, "row_steps": 0}
    plain = engine.decode_chunk

    def on_event(event: str, _: float, **__) -> None:
        counts["compiled"] += event == "/jax/core/compile/backend_compile_duration"

    def decode_chunk(model, params, state, uniform_BT2, last, **how):
        counts["row_steps"] += len(uniform_BT2) * int(last - (last - 1) // programs.CHUNK * programs.CHUNK)
        return plain(model, params, state, uniform_BT2, last, **how)

    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        with mock.patch.object(engine, "decode_chunk", decode_chunk):
            yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)


def unlearn(job: Job, record: Record, epochs: int) -> None:
    """`epochs` rounds of the project's own unlearning, cold: what each took, by phase, and what it decoded and
    compiled.
    """
    began = time.perf_counter()
    checkpoint = make_checkpoint(job)
    jax.block_until_ready(checkpoint.params)
    chat = checkpoint.tokenizer.chat_template is not None
    forget, retain = make_rows(job, chat, job.assumed.questions, 1), make_rows(job, chat, job.retain, 2)
    record("make_seconds", time.perf_counter() - began)
    config = job.config.copy_and_resolve_references()
    config.train.epochs = epochs
    rounds: list[dict[str, Any]] = []
    with Clock() as clock, counted() as counts:
        start, before = (
            time.perf_counter(),
            {"seconds": 0.0} | dict.fromkeys(counts, 0) | dict.fromkeys(clock.seconds, 0.0),
        )

        def on_round(summary, seen, updates):
            now = {"seconds": time.perf_counter() - start} | counts | clock.seconds
            since = {name: now[name] - before[name] for name in before}
            before.update(now)
            answers = len(seen) * config.sample.num_samples
            rounds.append(
                since
                | {
                    "answers": answers,
                    "tokens": summary["sampled_tokens"],
                    "updates": len(updates),
                    "peak_bytes": peak_bytes(),
                }
            )
            record("rounds", rounds)

        pmc_jax.unlearn(checkpoint, forget, retain, config, clock=clock, on_round=on_round)
        record("seconds", {"total": time.perf_counter() - start} | clock.seconds)
    first = rounds[0]
    record("first_update_seconds", first["seconds"] - first["update"] * (1 - 1 / first["updates"]))
    record("update_rows", 2 * config.train.batch_size)
