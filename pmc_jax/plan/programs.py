"""The programs of a round, lowered from abstract values, compiled for a topology and measured."""

import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import ACCELERATOR
from pmc_jax.plan import abstract, hlo
from pmc_jax.plan.abstract import Assumed, Shape
from pmc_jax.sampling import decode
from pmc_jax.sampling.buckets import batch_buckets
from pmc_jax.sampling.generate import round_sampling
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.training import update

DEPTHS = (1, 2)  # layers that are compiled in place of all: the rest is on the line through the two
# Weights and caches are prefetched into the chip's fast memory, and XLA's account counts each of these passes, and what
# an asynchronous collective holds in every operation beside it. Without this pass a byte is counted where an operation
# reads or writes it. The programs are the same but for it.
PLAIN = {"xla_msa_enable": "DISABLED"}
END_TOKENS = (0, 1)  # any two ids


class Measured(NamedTuple):
    """One program on one chip. arguments, outputs, aliased, temporary: bytes. flops, bytes, optimal_seconds: XLA's cost
    analysis.

    A loop's body is counted once: the update's figures are of one micro-batch, prefill's of one reading, decode's of
    one step. optimal_seconds: what the compiler's own cost
    model says. collectives: how many of each. float32_products: matrix products of two float32 operands.
    """

    arguments: float
    outputs: float
    aliased: float
    temporary: float
    flops: float
    bytes: float
    optimal_seconds: float
    compile_seconds: float
    float32_products: float
    collectives: dict[hlo.Collective, float]

    @property
    def peak(self) -> float:
        """Bytes while it runs; what is donated is not held twice."""
        return self.arguments + self.outputs - self.aliased + self.temporary


def measure(lowered: jax.stages.Lowered) -> tuple[Measured, jax.stages.Compiled]:
    """Compile, and read off what XLA says about the result. Raises JaxRuntimeError when it does not fit the chip's
    memory.

    The program's text is what the compiler dumps: `as_text` fails on some programs with asynchronous collectives.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options=PLAIN | {"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        text = next(Path(folder).glob("*.after_codegen.txt")).read_text(encoding="utf-8")
    seconds = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    # XLA takes a second off for each call that it has no cost for, most of them these.
    optimal = cost["optimal_seconds"] + text.count('custom_call_target="ConcatBitcast"')
    optimal += math.ceil(max(0.0, -optimal))
    sizes = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    sent = Counter(hlo.collectives(text))
    return Measured(
        *sizes, cost["flops"], cost["bytes accessed"], optimal, seconds, hlo.float32_products(text), sent
    ), compiled


def deeper(few: Measured, more: Measured, depths: tuple[int, int], layers: int) -> Measured:
    """What a model of `layers` layers takes, on the line through two compiled depths."""
    far = (layers - depths[0]) / (depths[1] - depths[0])

    def line(a: float, b: float) -> float:
        return a + far * (b - a)

    kinds = few.collectives.keys() | more.collectives.keys()
    counts = {kind: line(few.collectives.get(kind, 0), more.collectives.get(kind, 0)) for kind in sorted(kinds)}
    numbers = [line(a, b) for a, b in zip(few[:-1], more[:-1])]
    whole = Measured(*numbers, {kind: round(n) for kind, n in counts.items() if n >= 0.5})
    return whole._replace(compile_seconds=few.compile_seconds + more.compile_seconds)


def lower_update(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> jax.stages.Lowered:
    """The update step."""
    recipe, state, base = abstract.training(shape, config, mesh, assumed)
    batch = abstract.batch(config, mesh, assumed)
    return update.update.lower(
        update.on_mesh(shape.model, mesh), recipe, state, batch, base, shardings=update.layout(state)
    )


def lower_prefill(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> jax.stages.Lowered:
    """Reading the prompts of one batch of questions and their drafts, and drawing the first tokens."""
    s, shards = round_sampling(config), mesh.shape["data"]
    batches = abstract.sampling(config, mesh, assumed)
    params = abstract.params(shape, mesh, "decode", abstract.compute_dtype(config))
    buckets = batch_buckets(batches.rows, shards, s.max_new_tokens, ACCELERATOR, s.num_samples, drafted=True)
    plan = PrefillPlan(s.num_samples, buckets[0].slots, shards, batches.parts, meshes.cache_sharding(mesh))
    prompts, alive_Q = abstract.prompts(config, mesh, batches.size, assumed)
    uniform_BA2 = abstract.uniforms(mesh, batches.rows, prompts.drafts_QA.shape[1])
    inputs = shape.model, params, prompts, alive_Q, uniform_BA2
    return prefill.lower(*inputs, strategy=s.strategy, end_tokens=END_TOKENS, plan=plan)


def lower_decode(
    shape: Shape, config: ConfigDict, mesh: Mesh, prefilled: jax.stages.Lowered, compiled: jax.stages.Compiled
) -> jax.stages.Lowered:
    """A chunk of decode steps on the state that prefill leaves, where it leaves it, grown to the longest answer."""
    s = round_sampling(config)
    params = abstract.params(shape, mesh, "decode", abstract.compute_dtype(config))
    state, _ = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        prefilled.out_info,
        compiled.output_shardings,
    )
    grown = jax.eval_shape(lambda x: decode.grow(x, s.max_new_tokens), state)
    state = jax.tree.map(lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding), grown, state)
    uniform_BT2 = abstract.uniforms(mesh, state.done_B.shape[0], decode.CHUNK)
    inputs = shape.model, params, state, uniform_BT2, decode.CHUNK
    return decode.decode_chunk.lower(*inputs, strategy=s.strategy, end_tokens=END_TOKENS)


def compile_programs(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed, what: str) -> dict[str, Measured]:
    """Update, prefill and decode of one model; says on stderr how long each took to compile. what: in words."""
    results = {}

    def measured(name: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        results[name], compiled = measure(lowered)
        print(f"{name}, {what}: compiled in {results[name].compile_seconds:.0f} s", file=sys.stderr, flush=True)
        return compiled

    measured("update", lower_update(shape, config, mesh, assumed))
    prefilled = lower_prefill(shape, config, mesh, assumed)
    compiled = measured("prefill", prefilled)
    measured("decode", lower_decode(shape, config, mesh, prefilled, compiled))
    return results


def compile_round(
    raw: dict[str, Any], config: ConfigDict, mesh: Mesh, assumed: Assumed, whole: bool
) -> dict[str, Measured]:
    """The programs of the whole model: compiled with every layer by itself, or at two depths.

    The programs that run have a loop over layers. XLA's account counts its body once, and two turns in one are not
    twice as much to it (fused slices of the stack are counted otherwise), so the layers stand by themselves here.

    Args:
        raw: `config.json`.
        config: of the run.
        mesh: of the topology.
        assumed: what no setting says.
        whole: compile every layer, and extrapolate nothing.
    """

    def compiled(layers: int) -> dict[str, Measured]:
        shape = abstract.make_shape(raw, config.train.remat, layers, config.model.family, scan=layers)
        return compile_programs(shape, config, mesh, assumed, f"{layers} layers")

    layers = raw["num_hidden_layers"]
    if whole:
        return compiled(layers)
    few, more = map(compiled, DEPTHS)
    return {name: deeper(few[name], more[name], DEPTHS, layers) for name in few}
