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
from pmc_jax.distributed.device_kind import device_kind
from pmc_jax.methods.settings import read_training
from pmc_jax.plan import roofline
from pmc_jax.sampling import engine, prefill
from pmc_jax.sampling.buckets import batch_buckets, plan_batches
from pmc_jax.sampling.decode import CHUNK
from pmc_jax.sampling.generate import round_sampler
from pmc_jax.sampling.ledger import Ledger
from pmc_jax.sampling.prompts import left_pad, with_drafts
from pmc_jax.sampling.uniforms import row_uniforms
from pmc_jax.tracking.timing import Clock
from pmc_jax.training.settings import make_recipe, updates_per_epoch

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


def work(bound: roofline.Work, **more: Any) -> dict[str, Any]:
    return {"flops": bound.flops, "bytes": bound.bytes} | more


def decode(checkpoint: Any, job: Job, forget: list, rows: int) -> dict[str, Any]:
    """One decode step of so many rows. The bound counts the tokens there are, not the slots."""
    questions = rows // job.samples
    step = decode_step(checkpoint, job.config, forget, questions, job.samples)
    bound = roofline.decode_work(checkpoint.model, rows, STEP, questions, job.assumed.prompt, itemsize(checkpoint))
    return work(bound, rows=rows, seconds=step["seconds"])


def read_prompts(checkpoint: Any, job: Job, forget: list) -> dict[str, Any]:
    """Prefill of one batch of a round, with answers as drafts: prompts are read, and each row draws along its draft."""
    sampler, mesh = round_sampler(checkpoint, job.config), meshes.mesh_of(checkpoint.params)
    sampling, kind, texts = sampler.sampling, device_kind(mesh), [r["question"] for r in forget]
    drafts = [sampler.text.answer(r["answer"]) for r in forget]
    whole = left_pad([sampler.text.prompt(q) for q in texts], texts, multiple=8)
    whole = with_drafts(whole, drafts, sampler.text.end_tokens, sampling.max_new_tokens)
    draft_slots = whole.drafts_QA.shape[1]
    width, samples = whole.tokens_QP.shape[1] + draft_slots - 1, sampling.num_samples
    batch = plan_batches(len(forget), width, samples, sampler.engine.max_rows, 1, kind)
    prompts = whole.take(slice(batch.size))
    count = len(prompts.keys_Q)
    uniform_BA2 = row_uniforms(prompts.keys_Q, 0, 0, samples, draft_slots)[:, :draft_slots]
    inputs = meshes.put((prompts, np.ones(count, bool), uniform_BA2), meshes.row_sharding(mesh))
    slots = batch_buckets(batch.rows, 1, sampling.max_new_tokens, kind, samples, drafted=True)[0].slots
    static = dict(
        strategy=sampling.strategy,
        end_tokens=sampler.text.end_tokens,
        plan=prefill.PrefillPlan(samples, slots, parts=batch.parts),
    )
    took = seconds(lambda: prefill.prefill(checkpoint.model, sampler.params, *inputs, **static))
    drawn_from = int(np.sum(prompts.drafts_QA[:, :-1] >= 0)) + count
    tokens = int(np.sum(prompts.mask_QP)) + drawn_from - count
    bound = roofline.prefill_work(checkpoint.model, tokens, drawn_from, itemsize(checkpoint))
    return work(bound, prompts=count, tokens=tokens, width=width, rows=batch.rows, seconds=took)


def update(checkpoint: Any, job: Job, forget: list, retain: list, logits: int) -> dict[str, Any]:
    """One update of a batch as a round has them: the bound is of its real tokens and labels. logits: alive at once in
    the loss.
    """
    typical = typical_batch(checkpoint, job.config, forget, retain)
    updates = updates_per_epoch(len(forget), 0, job.config.train.batch_size)
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(job.config), updates)
    suited = checkpoint.replace(model=checkpoint.model.clone(logits_at_once=logits))
    took = seconds(updating(suited, recipe, typical.batch))
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
    errors(record, "prefill", lambda: read_prompts(checkpoint, job, forget))
    errors(record, "update", lambda: update(checkpoint, job, forget, retain, checkpoint.model.logits_at_once))
    if checkpoint.config.vocab_size * LABELS > checkpoint.model.logits_at_once:
        errors(record, "update_wider_loss", lambda: update(checkpoint, job, forget, retain, WIDER))
    record("peak_bytes", peak_bytes())


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts, while it is open, the programs that are compiled and the rows x steps that the sampler decodes, free rows
    among them.
    """
    counts = {"compiled": 0, "row_steps": 0}
    plain, look = engine.decode_chunk, Ledger.look

    def on_event(event: str, _: float, **__) -> None:
        counts["compiled"] += event == "/jax/core/compile/backend_compile_duration"

    def decode_chunk(model, params, state, uniform_BT2, last_step, **static):
        """Chunks are aligned: one that ends at `last_step` began at the multiple of CHUNK before it. In the last chunk
        of a batch all rows may be done earlier, and a few steps too many are counted.
        """
        counts["row_steps"] += len(uniform_BT2) * int(last_step - (last_step - 1) // CHUNK * CHUNK)
        return plain(model, params, state, uniform_BT2, last_step, **static)

    def count_look(ledger, chunk, devices):
        look(ledger, chunk, devices)
        counts["row_steps"] += chunk.written.tokens_BT2.shape[0] * int(chunk.written.steps)

    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        with mock.patch.object(engine, "decode_chunk", decode_chunk), mock.patch.object(Ledger, "look", count_look):
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
