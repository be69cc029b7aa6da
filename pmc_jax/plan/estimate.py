"""Memory and time without a compiler: what meshes are compared by, and by how much the compiled figures grow with the
batch.

Bytes of parameters, optimizer and cache are exact (they follow from the shardings). Activations and times are a model
of the program: its matrix products, the weights and caches it reads, the collectives it must have.
"""

from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax.methods.settings import read_schedule, read_training
from pmc_jax.models.layer_stack import plan_stack
from pmc_jax.plan import abstract, roofline
from pmc_jax.plan.abstract import Assumed, Shape
from pmc_jax.plan.sampling import plan_sampling
from pmc_jax.plan.topology import Topology
from pmc_jax.training.recipe import Recipe
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.stacking import is_stacked

HOP = 5e-6  # seconds that a small collective takes at least


class Held(NamedTuple):
    """Bytes on a chip between the programs. params, optimizer: of the training state, adapters where such are trained.
    weights: the parameters in the dtype of the forward pass, which a round's updates hand on; 0 where it is their own.
    start: the parameters that updates read besides, those under the adapters or those that a method compares with, and
    those that the result is interpolated with; 0 where there are none: a run gives its own away.

    sampling: the parameters laid out for decoding. cache: keys and values, of prompts and answers, of the rows decoded
    at once.
    """

    params: int
    optimizer: int
    weights: int
    start: int
    sampling: int
    cache: int


class Estimate(NamedTuple):
    """One mesh. update_bytes, sample_bytes: held and temporary, on a chip. Seconds of one update, of one round's
    sampling, of a whole round.
    """

    update_bytes: float
    sample_bytes: float
    update_seconds: float
    sample_seconds: float
    round_seconds: float

    @property
    def peak(self) -> float:
        """Most bytes on a chip at any time."""
        return max(self.update_bytes, self.sample_bytes)


def held(shape: Shape, config: ConfigDict, mesh: Mesh, assumed: Assumed) -> Held:
    """What stays on a chip, exactly."""
    recipe, state, base = abstract.training(shape, config, mesh, assumed)
    dtype = abstract.compute_dtype(config)
    same = (
        not shape.model.scan and mesh.shape["data"] == 1 and dtype == config.model.dtype and not config.lora.rank
    )  # then decoding reads the training parameters
    c, drawn = shape.model.config, plan_sampling(shape.model, config, mesh.shape["data"], assumed)
    slots = drawn.prompts * abstract.prefix_slots(config, assumed) + drawn.rows * drawn.own_slots
    cache = 2 * c.num_layers * c.num_kv_heads * c.head_dim * slots * abstract.itemsize(config) // mesh.size
    sampling = 0 if same else abstract.bytes_of(abstract.params(shape, mesh, "decode", dtype))
    trained = (abstract.bytes_of(part) for part in (state.params, state.opt_state, state.weights))
    return Held(*trained, held_start(shape, config, mesh, recipe, base), sampling, cache)


def held_start(shape: Shape, config: ConfigDict, mesh: Mesh, recipe: Recipe, base: Any) -> int:
    """Bytes of the start model on a chip: what updates read (`base`), and what the result is interpolated with."""
    if recipe.lora or recipe.share == 1.0:
        return abstract.bytes_of(base)
    kept = abstract.params(shape, mesh, "train", config.model.dtype)
    return abstract.bytes_of(kept) + (0 if base == kept else abstract.bytes_of(base))  # equal ones are the same arrays


def update_temporary(shape: Shape, config: ConfigDict, mesh: Mesh, packing: Any) -> tuple[float, float]:
    """(bytes that do not depend on the batch, bytes per packed row of a shard): gradients; the stack of the layers and
    its gradients, where the state is not stacked; the gathered weights, of two layers or of all; activations.

    Gradients of a single micro-batch have the dtype of the forward pass. Adapters are merged for the pass, and the
    gradient goes through the merged weights: both are there at once.
    With remat a layer keeps its input and its products with weights; without, about what its products read and write,
    and its scores. The logits of one chunk exist twice, in float32.
    """
    c, tensor = shape.model.config, mesh.shape["model"]
    itemsize = abstract.itemsize(config)
    layers, head = roofline.multiplied(shape.model)
    one_pass = packing.micro_batches == 1 and not config.lora.rank
    dtype = abstract.compute_dtype(config) if one_pass else config.model.dtype
    gradients = (2 if config.lora.rank else 1) * abstract.bytes_of(abstract.params(shape, mesh, "train", dtype))
    gathered = (2 * head + (layers if config.train.gather_once else 4 * layers / c.num_layers)) * itemsize / tensor
    logits = 2 * 4 * min(shape.model.logits_at_once, packing.labels * c.vocab_size) / tensor
    inside = (
        packing.length
        * (6 * c.width + (2 * c.num_heads + 4 * c.num_kv_heads) * c.head_dim / tensor + 6 * c.mlp_width / tensor)
        * itemsize
    )
    scores = 3 * 4 * c.num_heads / tensor * packing.length * (2 * packing.length + packing.prefix)
    products = 3 * c.width + ((c.num_heads + 2 * c.num_kv_heads) * c.head_dim + 2 * c.mlp_width) / tensor
    kept = packing.length * products * itemsize if config.train.remat else inside + scores
    recipe = make_recipe(
        shape.family, shape.model, read_training(config).on(mesh), updates=1
    )  # they set the rate alone
    in_update = shape.model.scan and plan_stack(c.layers).layers and not is_stacked(shape.model, recipe)
    stacked = 2 * layers * itemsize / mesh.size if in_update else 0
    return gradients + stacked + gathered + logits, c.num_layers * kept + inside + scores


def update_time(shape: Shape, config: ConfigDict, mesh: Mesh, packing: Any, topology: Topology) -> float:
    """Seconds of one update: products or memory, whichever is longer, and what must be sent between chips, one after
    the other.
    """
    c, chip, tensor, data = shape.model.config, topology.chip, mesh.shape["model"], mesh.shape["data"]
    layers, head = roofline.multiplied(shape.model)
    itemsize = abstract.itemsize(config)
    positions = packing.rows * packing.length
    flops = (6 * layers * positions + 8 * head * packing.labels) / tensor
    whole = (layers + head) * itemsize / tensor
    passes = 2 if config.train.gather_once else 3  # gathered forward and backward, or once; gradients scattered
    optimizer = (3 if config.lora.rank else 12) * (layers + head) * itemsize / mesh.size  # under adapters: the merging
    local = max(flops / chip.flops, (passes * whole + optimizer) / chip.bandwidth)
    sent = passes * whole * (data - 1) / data / chip.ici
    summed = 4 * c.num_layers * positions * c.width * itemsize * 2 * (tensor - 1) / tensor / chip.ici
    between = passes * whole * tensor * (1 - 1 / topology.slices) / (topology.chips / topology.slices * chip.dcn)
    return packing.micro_batches * (local + sent + summed + between)


def decode_time(
    shape: Shape, config: ConfigDict, mesh: Mesh, topology: Topology, rows: int, prompts: int, assumed: Assumed
) -> float:
    """Seconds of one decode step of `rows` rows in all: weights and caches read, products, and two sums over `model` a
    layer.
    """
    c, chip, tensor, data = shape.model.config, topology.chip, mesh.shape["model"], mesh.shape["data"]
    itemsize, mine = abstract.itemsize(config), rows / data
    own, prefix = config.sample.max_new_tokens, abstract.prefix_slots(config, assumed)
    work = roofline.decode_work(shape.model, mine, own, prompts / data, prefix, itemsize)
    local = roofline.seconds(work, roofline.Peak(chip.flops, chip.bandwidth)) / tensor
    sums = (
        2 * c.num_layers * (HOP + 2 * mine * c.width * itemsize * (tensor - 1) / tensor / chip.ici)
        if tensor > 1
        else 0.0
    )
    return local + sums


def estimate(shape: Shape, config: ConfigDict, mesh: Mesh, topology: Topology, assumed: Assumed) -> Estimate:
    """The mesh's memory and seconds."""
    stays, packing = held(shape, config, mesh, assumed), abstract.plan_packing(config, mesh.shape["data"], assumed)
    fixed, per_row = update_temporary(shape, config, mesh, packing)
    drawn = plan_sampling(shape.model, config, mesh.shape["data"], assumed)
    prefix = abstract.prefix_slots(config, assumed)
    drawn_from = max(drawn.rows, drawn.reads * prefix) / mesh.shape["data"]  # a decode step's positions, or a reading's
    logits = 4 * 4 * drawn_from * shape.model.config.vocab_size / mesh.shape["model"]
    base = stays.params + stays.optimizer + stays.start
    step = update_time(shape, config, mesh, packing, topology)
    distinct, counts = np.unique(drawn.steps, return_counts=True)
    decoded = sum(
        n * decode_time(shape, config, mesh, topology, int(rows), drawn.prompts, assumed)
        for rows, n in zip(distinct, counts)
    )
    positions = drawn.readings * drawn.reads * prefix
    read = 2 * sum(roofline.multiplied(shape.model)) * positions / mesh.size / topology.chip.flops
    sampled = decoded + read
    return Estimate(
        base + stays.weights + fixed + packing.rows * per_row,
        base + stays.sampling + stays.cache + logits,
        step,
        sampled,
        sampled + updates_per_round(config, assumed) * step,
    )


def updates_per_round(config: ConfigDict, assumed: Assumed) -> int:
    """Updates after each sampling."""
    return -(-read_schedule(config, assumed.questions).round_size // config.train.batch_size)
