"""The verb: settings and a topology -> which mesh, does it fit, how long does a round take, and why."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import ACCELERATOR, GPU
from pmc_jax.errors import UserError
from pmc_jax.methods.settings import fitted
from pmc_jax.models import weights
from pmc_jax.models.layer_stack import stack_layers
from pmc_jax.plan import abstract, estimate, programs, topology
from pmc_jax.plan.abstract import Assumed, Shape
from pmc_jax.plan.collectives import seconds_sent
from pmc_jax.plan.estimate import Estimate
from pmc_jax.plan.programs import Measured
from pmc_jax.plan.sampling import plan_sampling
from pmc_jax.plan.topology import Topology

SHOWN = (
    "model.dtype",
    "train.remat",
    "train.gather_once",
    "train.batch_size",
    "train.accumulate",
    "lora.rank",
    "sample.num_samples",
    "sample.max_rows",
)
AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
MOST_TENSOR = 16  # a model axis longer than this leaves the links of a torus axis


def candidate_meshes(shape: Shape, target: Topology, make_mesh: Callable[[int, int], AnyMesh]) -> list[AnyMesh]:
    """Every (data, model) mesh of the topology that divides the model and keeps `model` within a slice."""
    c, candidates = shape.model.config, []
    for tensor in range(1, MOST_TENSOR + 1):
        divides = not any(size % tensor for size in (c.num_heads, c.num_kv_heads, c.mlp_width, c.vocab_size))
        if divides and target.chips // target.slices % tensor == 0:
            candidates.append(make_mesh(-1, tensor))
    return candidates


def possible_meshes(
    shape: Shape, config: ConfigDict, target: Topology, make_mesh: Callable[[int, int], AnyMesh]
) -> tuple[list[AnyMesh], bool]:
    """The mesh that the settings fix, or every candidate; and whether they fix it."""
    if config.mesh.data == -1 and config.mesh.model == 1:
        return candidate_meshes(shape, target, make_mesh), False
    mesh = make_mesh(config.mesh.data, config.mesh.model)
    meshes.check_mesh(mesh, shape.model.config.axis_sizes)
    return [mesh], True


def choose(options: list[tuple[AnyMesh, Estimate]], hbm: float) -> AnyMesh:
    """The quickest mesh that fits by the estimate; the one that needs least where none does."""
    fitting = [(e.round_seconds, i) for i, (_, e) in enumerate(options) if e.peak <= hbm]
    least = min(fitting) if fitting else min((e.peak, i) for i, (_, e) in enumerate(options))
    return options[least[1]][0]


def roofline(m: Measured, target: Topology, mesh: jax.sharding.Mesh) -> dict[str, float]:
    """Seconds that products, memory and collectives each take at the chip's full speed; `bound`, the longest, is what
    no schedule can beat.

    Of several slices, a collective over `data` also sends all but each slice's own part over the data centre's network.
    """
    collectives = [c for c in m.collectives for _ in range(round(m.collectives[c]))]
    sent = seconds_sent(collectives, target.chip.ici)
    if target.slices > 1:
        over_data = (c for c in collectives if c.group in (mesh.shape["data"], mesh.size))
        sent += sum(c.bytes * (1 - 1 / target.slices) / (c.group / target.slices * target.chip.dcn) for c in over_data)
    parts = {"products": m.flops / target.chip.flops, "memory": m.bytes / target.chip.bandwidth, "collectives": sent}
    return parts | {"bound": max(parts.values())}


def weight_gathers(shape: Shape, mesh: Any, m: Measured) -> int:
    """All-gathers of a program whose result is a weight matrix, or a stack of them, whole or one device's share of it
    along `model`.
    """
    layers, params = shape.model.config.layers, weights.abstract_params(shape.model)
    sizes = {
        x.size // parts
        for x in jax.tree.leaves((params, jax.eval_shape(lambda tree: stack_layers(layers, tree), params)))
        if x.ndim > 1
        for parts in (1, mesh.shape["model"])
    }
    return round(sum(n for c, n in m.collectives.items() if c.kind == "all-gather" and c.elements in sizes))


def largest(
    shape: Shape, config: ConfigDict, mesh: Any, target: Topology, assumed: Assumed, used: dict[str, float]
) -> dict[str, int]:
    """The largest train.batch_size (in the micro-batches set) and sample.max_rows that fit: what is used now, and a
    slope from the memory model.
    """
    packing = abstract.plan_packing(config, mesh.shape["data"], assumed)
    _, per_row = estimate.update_temporary(shape, config, mesh, packing)
    rows = int((target.chip.hbm - used["update"]) // per_row) + packing.rows
    c, tensor = shape.model.config, mesh.shape["model"]
    itemsize = abstract.itemsize(config)
    slots = config.sample.max_new_tokens + abstract.prefix_slots(config, assumed) / config.sample.num_samples
    per_answer = (2 * c.num_layers * c.num_kv_heads * c.head_dim * itemsize * slots + 16 * c.vocab_size) / tensor
    now = plan_sampling(shape.model, config, mesh.shape["data"], assumed).rows // mesh.shape["data"]
    answers = int((target.chip.hbm - used["decode"]) // per_answer) + now
    return {"batch_size": max(0, int(config.train.batch_size * rows / packing.rows)), "max_rows": max(0, answers)}


def round_seconds(
    shape, config, mesh, target: Topology, assumed: Assumed, measured: dict[str, Measured]
) -> dict[str, float]:
    """Seconds of a round at the compiled programs' bounds: every reading of prompts, every decode step at the size it
    then has, every update.
    """
    drawn = plan_sampling(shape.model, config, mesh.shape["data"], assumed)
    bounds = {name: roofline(m, target, mesh)["bound"] for name, m in measured.items()}
    sizes, counts = np.unique(drawn.steps, return_counts=True)
    cost = [
        estimate.decode_time(shape, config, mesh, target, int(n), drawn.prompts, assumed) for n in (*sizes, drawn.rows)
    ]
    steps = sum(n * each / cost[-1] for n, each in zip(counts, cost))  # in steps of the full size
    sample = drawn.readings * bounds["prefill"] + steps * bounds["decode"]
    micro_batches = abstract.plan_packing(config, mesh.shape["data"], assumed).micro_batches
    update = estimate.updates_per_round(config, assumed) * micro_batches * bounds["update"]
    return {"sample": sample, "update": update, "round": sample + update}


def memory(measured: dict[str, Measured], stays: estimate.Held, chip: topology.Chip, adapters: bool) -> dict[str, Any]:
    """Bytes on a chip while each program runs, and whether both fit. An update of adapters is given the parameters
    under them.
    """
    state = stays.params + stays.optimizer
    decode = max(measured["decode"].peak, measured["prefill"].peak) + (state if stays.sampling else stays.optimizer)
    if adapters:  # merged as they are trained, then laid out for decoding
        decode = max(decode, stays.start + stays.sampling + state)
    used = {"update": measured["update"].peak + (0 if adapters else stays.start), "decode": stays.start + decode}
    return {"used": used, "hbm": chip.hbm, "fits": max(used.values()) <= chip.hbm}


def plan(config: ConfigDict, target: Topology, assumed: Assumed, compiling: str = "whole") -> dict[str, Any]:
    """Everything that `pmc-jax plan` prints, JSON-ready. compiling: "none" (the memory and time model alone) or "whole"
    (the programs that a run has).
    """
    config = fitted(settings.check(config), assumed.questions)
    start = time.perf_counter()
    raw = abstract.read_shape(config.model.path)
    make_mesh = topology.mesh_maker(target, compiled=compiling != "none")
    kind = GPU if target.is_gpu else ACCELERATOR
    shape = abstract.make_shape(raw, config.train.remat, config.model.family, kind)
    layouts, fixed = possible_meshes(shape, config, target, make_mesh)
    options = [(mesh, estimate.estimate(shape, config, mesh, target, assumed)) for mesh in layouts]
    mesh = choose(options, target.chip.hbm)
    stays = estimate.held(shape, config, mesh, assumed)
    guess = dict(options)[mesh]
    result: dict[str, Any] = {
        "model": config.model.path,
        "parameters": sum(x.size for x in jax.tree.leaves(weights.abstract_params(shape.model))),
        "topology": str(target),
        "chips": target.chips,
        "assumed": assumed._asdict() | {"updates_per_round": estimate.updates_per_round(config, assumed)},
        "trained": sum(x.size for x in jax.tree.leaves(abstract.training(shape, config, mesh, assumed).state.params)),
        "settings": {name: settings.lookup(config, name) for name in SHOWN},
        "meshes": [dict(m.shape) | e._asdict() | {"fits": e.peak <= target.chip.hbm} for m, e in options],
        "mesh": dict(mesh.shape),
        "chosen": not fixed,
        "packing": abstract.plan_packing(config, mesh.shape["data"], assumed)._asdict(),
        "rows_at_once": plan_sampling(shape.model, config, mesh.shape["data"], assumed).rows,
        "held": stays._asdict(),
        "compiled": compiling,
    }
    if compiling == "none":
        used = {"update": guess.update_bytes, "decode": guess.sample_bytes}
        result["memory"] = {"used": used, "hbm": target.chip.hbm, "fits": guess.peak <= target.chip.hbm}
        result["seconds"] = {
            "sample": guess.sample_seconds,
            "update": guess.round_seconds - guess.sample_seconds,
            "round": guess.round_seconds,
        }
        return result | {"largest": largest(shape, config, mesh, target, assumed, used)}
    try:
        compiled = programs.compile_round(shape, config, mesh, assumed, target.chip)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"{config.model.path} on {target}, mesh {dict(mesh.shape)}: the compiler finds no room: "
            f"{str(error).splitlines()[0][:300]}"
        ) from None
    result["memory"] = memory(compiled, stays, target.chip, bool(config.lora.rank))
    result["seconds"] = round_seconds(shape, config, mesh, target, assumed, compiled)
    result["largest"] = largest(shape, config, mesh, target, assumed, result["memory"]["used"])
    result["programs"] = {
        name: {k: v for k, v in m._asdict().items() if k != "collectives"}
        | {"roofline": roofline(m, target, mesh), "weight_gathers": weight_gathers(shape, mesh, m)}
        | {"collectives": [c._asdict() | {"count": n} for c, n in m.collectives.items()]}
        for name, m in compiled.items()
    }
    return result | {"plan_seconds": time.perf_counter() - start}
