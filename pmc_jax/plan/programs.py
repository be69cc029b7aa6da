"""The programs of a round as a run has them, lowered from abstract values, compiled for a topology and measured."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax.data import packing
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import ACCELERATOR
from pmc_jax.plan import abstract, hlo, hlo_cost
from pmc_jax.plan.abstract import Assumed, Shape
from pmc_jax.plan.collectives import Collective
from pmc_jax.plan.sampling import Sampling, plan_sampling
from pmc_jax.plan.topology import Chip
from pmc_jax.sampling import decode
from pmc_jax.sampling.buckets import LanePlan, batch_buckets
from pmc_jax.sampling.generate import round_sampling
from pmc_jax.sampling.lanes import Drawing, LaneState, decode_lanes
from pmc_jax.sampling.pages import Seats, empty_lanes, fill_pages
from pmc_jax.sampling.prefill import PrefillPlan, prefill
from pmc_jax.training import update

END_TOKENS = (0, 1)  # any two ids
# What reads prompts, and the state that the compiled program leaves.
Prefill = tuple[jax.stages.Lowered, Callable[[jax.stages.Compiled], Any]]


class Measured(NamedTuple):
    """One program on one chip. arguments, outputs, aliased, temporary: bytes, as the compiler lays them out.

    The update's figures are of one micro-batch, prefill's of one reading, decode's of one step. flops, bytes,
    optimal_seconds: `hlo_cost.cost` of the compiled text; the seconds are those of its operations one after the other,
    each by the longer of its products and its bytes. collectives: how many of each. float32_products: matrix products
    of two float32 operands.
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
    collectives: dict[Collective, float]

    @property
    def peak(self) -> float:
        """Bytes while it runs; what is donated is not held twice."""
        return self.arguments + self.outputs - self.aliased + self.temporary


def compile_text(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """A compiled program and its text. Raises JaxRuntimeError when it does not fit the chip's memory.

    For a TPU the text is what the compiler dumps: `as_text` fails on some programs with asynchronous collectives.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        dumped = next(Path(folder).glob("*.after_codegen.txt"), None)
        return compiled, dumped.read_text(encoding="utf-8") if dumped else compiled.as_text()


def measure(lowered: jax.stages.Lowered, chip: Chip) -> tuple[Measured, jax.stages.Compiled]:
    """Compile, and read off what the result takes. Raises as `compile_text` does."""
    start = time.perf_counter()
    compiled, text = compile_text(lowered)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    sizes = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    module = hlo.parse(text)
    cost = hlo_cost.cost(module, chip.flops, chip.bandwidth)
    return Measured(*sizes, *cost, seconds, hlo_cost.float32_products(module), hlo_cost.sent(module)), compiled


def lower(program: Any, mesh: Mesh, *args: Any, **static: Any) -> jax.stages.Lowered:
    """A jitted function lowered for the mesh's devices, which are not those of this machine."""
    platform = {"gpu": "cuda"}.get(kind := mesh.devices.flat[0].platform, kind)
    return program.trace(*args, **static).lower(lowering_platforms=(platform,))


def lower_update(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> jax.stages.Lowered:
    """The update step."""
    recipe, state, base = abstract.training(shape, config, mesh, assumed)
    batch = abstract.batch(config, mesh, assumed)
    return lower(
        update.update,
        mesh,
        update.on_mesh(shape.model, mesh),
        recipe,
        state,
        batch,
        base,
        shardings=update.layout(state),
    )


def lower_prefill(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> Prefill:
    """Reading prompts and their drafts, and drawing the first tokens; and a function from the compiled program to the
    state that it leaves.
    """
    drawn = plan_sampling(shape.model, config, mesh.shape["data"], assumed)
    if isinstance(drawn.plan, LanePlan):
        return lower_lanes(shape, config, mesh, assumed, drawn)
    return lower_batch(shape, config, mesh, assumed, drawn)


def lower_lanes(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed, drawn: Sampling) -> Prefill:
    """`lower_prefill` where rows that end are refilled from the waiting questions."""
    s, sharding = round_sampling(config), meshes.cache_sharding(mesh)
    params = abstract.params(shape, mesh, "decode", abstract.compute_dtype(config))
    drawing = Drawing(s.strategy, END_TOKENS, s.max_new_tokens, sharding)
    prompts, alive_Q = abstract.prompts(config, mesh, drawn.reads, assumed)
    longest = packing.round_up(s.max_new_tokens, decode.CHUNK)
    uniform_QnL2 = abstract.uniforms(mesh, drawn.reads, s.num_samples, longest)
    empty = lower(empty_lanes, mesh, shape.model, params, prompts, uniform_QnL2, plan=drawn.plan, drawing=drawing)
    state = laid_out(empty, empty.compile())
    numbers_Q = jax.ShapeDtypeStruct(alive_Q.shape, jnp.int32, sharding=alive_Q.sharding)
    questions = prompts, Seats(alive_Q, numbers_Q, numbers_Q, numbers_Q), uniform_QnL2
    plan = PrefillPlan(s.num_samples, 0, mesh.shape["data"], 1, sharding)
    lowered = lower(fill_pages, mesh, shape.model, params, state, questions, drawing=drawing, plan=plan)
    return lowered, lambda compiled: laid_out(lowered, compiled)[0]


def lower_batch(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed, drawn: Sampling) -> Prefill:
    """`lower_prefill` where a batch is drawn until all its rows have ended."""
    s, shards, batches = round_sampling(config), mesh.shape["data"], drawn.plan
    params = abstract.params(shape, mesh, "decode", abstract.compute_dtype(config))
    buckets = batch_buckets(batches.rows, shards, s.max_new_tokens, ACCELERATOR, s.num_samples, drafted=True)
    plan = PrefillPlan(s.num_samples, buckets[0].slots, shards, batches.parts, meshes.cache_sharding(mesh))
    prompts, alive_Q = abstract.prompts(config, mesh, batches.size, assumed)
    uniform_BA2 = abstract.uniforms(mesh, batches.rows, prompts.drafts_QA.shape[1])
    inputs = shape.model, params, prompts, alive_Q, uniform_BA2
    lowered = lower(prefill, mesh, *inputs, strategy=s.strategy, end_tokens=END_TOKENS, plan=plan)

    def grown(compiled: jax.stages.Compiled) -> Any:
        state = laid_out(lowered, compiled)[0]
        more = jax.eval_shape(lambda x: decode.grow(x, s.max_new_tokens), state)
        return jax.tree.map(lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding), more, state)

    return lowered, grown


def laid_out(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled) -> Any:
    """What a program gives, by shape, where the compiler lays it."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        lowered.out_info,
        compiled.output_shardings,
    )


def lower_decode(shape: Shape, config: ConfigDict, mesh: Mesh, state: Any) -> jax.stages.Lowered:
    """A chunk of decode steps on the state that prefill leaves."""
    s = round_sampling(config)
    params = abstract.params(shape, mesh, "decode", abstract.compute_dtype(config))
    if isinstance(state, LaneState):
        drawing = Drawing(s.strategy, END_TOKENS, s.max_new_tokens, meshes.cache_sharding(mesh))
        ready_GX = state.samples.ready_GX
        lost_GX = jax.ShapeDtypeStruct(ready_GX.shape, bool, sharding=ready_GX.sharding)
        inputs = shape.model, params, state, lost_GX
        return lower(decode_lanes, mesh, *inputs, drawing=drawing, steps=ACCELERATOR.look_steps)
    uniform_BT2 = abstract.uniforms(mesh, state.done_B.shape[0], decode.CHUNK)
    inputs = shape.model, params, state, uniform_BT2, decode.CHUNK
    return lower(decode.decode_chunk, mesh, *inputs, strategy=s.strategy, end_tokens=END_TOKENS)


def compile_round(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed, chip: Chip) -> dict[str, Measured]:
    """Update, prefill and decode of the whole model; says on stderr how long each took to compile."""
    results = {}

    def measured(name: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        results[name], compiled = measure(lowered, chip)
        print(f"{name}: compiled in {results[name].compile_seconds:.0f} s", file=sys.stderr, flush=True)
        return compiled

    measured("update", lower_update(shape, config, mesh, assumed))
    prefilled, state_of = lower_prefill(shape, config, mesh, assumed)
    state = state_of(measured("prefill", prefilled))
    measured("decode", lower_decode(shape, config, mesh, state))
    return results
