"""Training rows in, updated state out: packing sizes, the recipe, and the loop over batches that unlearning and
fine-tuning share.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pmc_jax.data.packing import Batch, Packing, Row, common_prefix, pack, plan_packing
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import device_kind
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family, lora
from pmc_jax.models.config import Rope
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.training.update import Recipe, TrainState, abstract_state, create_state, layout, on_mesh, put_batch, update

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
DRAWN_BATCHES = 40  # typical batches that the packing is planned on


def with_remat(checkpoint: PretrainedModel, config: ConfigDict) -> PretrainedModel:
    """The checkpoint with a model that recomputes activations in the backward pass, where the settings say so."""
    return checkpoint.replace(model=checkpoint.model.clone(remat=config.train.remat))


def make_recipe(config: ConfigDict, num_rows: int, together: int = 0) -> Recipe:
    """The optimizer's settings for `num_rows` training rows an epoch, of which `together` (0 = all) are dealt to
    batches at a time: rounds and batches never straddle an epoch.
    """
    round_size = min(together or num_rows, num_rows)
    sizes = [min(round_size, num_rows - start) for start in range(0, num_rows, round_size)]
    steps = sum(-(-size // config.train.batch_size) for size in sizes)
    t = config.train
    return Recipe(
        optimizer=t.optimizer,
        moment_dtype=t.moment_dtype,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup_steps=round(t.warmup_epochs * steps),
        total_steps=t.epochs * steps,
        grad_clip=t.grad_clip,
        compute_dtype=config.model.compute_dtype,
        hyper=(("retain_weight", config.pmc.retain_weight),),
    )


def plan_adapters(family: Family, model: Decoder, config: ConfigDict) -> lora.Lora | None:
    """The adapters that the settings ask for, None where the weights are trained. UserError for targets that the model
    does not have.
    """
    c = config.lora
    return lora.plan(family, model, c.rank, c.alpha, c.targets) if c.rank else None


def full_recipe(family: Family, model: Decoder, config: ConfigDict, num_rows: int, together: int) -> Recipe:
    """`make_recipe`, with the adapters that the settings ask for."""
    return make_recipe(config, num_rows, together)._replace(lora=plan_adapters(family, model, config))


def shapes_of_state(checkpoint: PretrainedModel, recipe: Recipe) -> TrainState:
    """Shapes, dtypes and shardings of the state that is trained."""
    mesh = meshes.mesh_of(checkpoint.params)
    return abstract_state(
        lora.abstract(checkpoint.model, recipe.lora, mesh) if recipe.lora else checkpoint.params, recipe
    )


def start_state(
    checkpoint: PretrainedModel, config: ConfigDict, num_rows: int, together: int = 0
) -> tuple[Recipe, TrainState]:
    """The recipe (`make_recipe`), and the state before the first update: of the parameters, or of fresh adapters."""
    recipe = full_recipe(checkpoint.family, checkpoint.model, config, num_rows, together)
    if not recipe.lora:
        return recipe, create_state(checkpoint.params, recipe)
    return recipe, create_state(
        lora.create(checkpoint.model, recipe.lora, config.seed, meshes.mesh_of(checkpoint.params)), recipe
    )


def check_finite(updates: list[dict[str, float]], what: str) -> None:
    """UserError where a loss is no finite number: nothing good comes after, and saving on would push out the rounds
    before.
    """
    if not all(np.isfinite(u["loss"]) for u in updates):
        raise UserError(
            f"{what}: the loss is not a finite number; a lower train.learning_rate may help. Rounds saved before are "
            "as they were"
        )


def trained(checkpoint: PretrainedModel, recipe: Recipe, state: TrainState) -> PretrainedModel:
    """The checkpoint with the state's parameters, or with the state's adapters merged into its own."""
    if not recipe.lora:
        return checkpoint.replace(params=state.params)
    merged = lora.merge(checkpoint.model, recipe.lora, checkpoint.params, state.params)
    return checkpoint.replace(params=merged, adapters=(recipe.lora, state.params))


def make_step(checkpoint: PretrainedModel, recipe: Recipe) -> Step:
    """The update step, compiled at its first call."""
    mesh, model = meshes.mesh_of(checkpoint.params), checkpoint.model
    shardings = layout(shapes_of_state(checkpoint, recipe))
    return functools.partial(
        update, on_mesh(model, mesh), recipe, base=checkpoint.params if recipe.lora else None, shardings=shardings
    )


def check_length(config: ConfigDict, rope: Rope) -> None:
    """UserError where rows could outgrow what dynamic RoPE was trained for: packed examples would then change each
    other's angles.
    """
    if rope.type == "dynamic" and config.train.max_length > rope.max_positions:
        raise UserError(
            f"train.max_length={config.train.max_length}: with dynamic RoPE at most "
            f"max_position_embeddings={rope.max_positions}"
        )


def even_batches(examples: list[tuple[Row, ...]], size: int) -> list[list[Row]]:
    """The rows of as few batches of at most `size` examples as hold them all, each batch with about equally many
    tokens: little padding then makes them one shape. An example's rows (an answer to forget and its retain row) stay
    together.
    """
    count = -(-len(examples) // size)
    batches: list[list[tuple[Row, ...]]] = [[] for _ in range(count)]
    tokens = [0] * count
    for example in sorted(examples, key=lambda rows: -sum(len(r.tokens) for r in rows)):
        at = min((b for b in range(count) if len(batches[b]) < size), key=lambda b: tokens[b])
        batches[at].append(example)
        tokens[at] += sum(len(r.tokens) for r in example)
    return [[row for example in batch for row in example] for batch in batches]


def start_packing(
    config: ConfigDict, forget: list[Row], retain: list[Row], longest: int, mesh: Mesh, together: int
) -> Packing:
    """The packing for batches of `train.batch_size` examples, planned on drawn ones. The same rows give the same
    packing.

    forget, retain: rows like those to come, an example holds one of each. longest: the most tokens that any row to come
    can have.
    together: how many examples are dealt to batches at a time.
    """
    kinds = [rows for rows in (forget, retain) if rows]
    longest = max(longest, *(len(r.tokens) for rows in kinds for r in rows))
    rng = np.random.default_rng(config.seed)
    batches: list[list[Row]] = []
    while len(batches) < DRAWN_BATCHES:
        columns = [[rows[i] for i in rng.integers(len(rows), size=together)] for rows in kinds]
        batches += even_batches(list(zip(*columns)), config.train.batch_size)
    prefix, shards = common_prefix(forget + retain), mesh.shape["data"]
    micro_batches = config.train.accumulate
    if not micro_batches:
        positions = np.mean([sum(len(r.tokens) - prefix for r in rows) for rows in batches]) / shards
        size = device_kind(mesh).micro_batch_positions
        micro_batches = max(1, round(positions / size)) if size else 1
    return plan_packing(batches, longest, prefix, shards, micro_batches)


def compile_update(
    checkpoint: PretrainedModel, recipe: Recipe, state: TrainState, packing: Packing, row: Row
) -> Future:
    """The update step, compiled in a thread while the first answers are sampled. row: any example."""
    any_shape = make_step(checkpoint, recipe)
    model, base, shardings = any_shape.args[0], any_shape.keywords["base"], any_shape.keywords["shardings"]
    mesh = meshes.mesh_of(state.params)
    batch = put_batch(pack([row], packing, mesh.shape["data"]), mesh)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), (state, batch, base))

    def build() -> Step:
        compiled = update.lower(model, recipe, *shapes, shardings=shardings).compile()

        def step(state: TrainState, batch: Batch):
            if batch.tokens_MRT.shape == shapes[1].tokens_MRT.shape:
                return compiled(state, batch, base)
            return any_shape(state, batch)  # a batch of far longer answers than planned for has more micro-batches

        return step

    pool = ThreadPoolExecutor(1)
    step = pool.submit(build)
    pool.shutdown(wait=False)
    return step


def train_on(
    step: Step, state: TrainState, batches: list[list[Row]], packing: Packing
) -> tuple[TrainState, list[dict[str, float]]]:
    """One update, a call of `step`, per batch. Returns the state and each update's metrics, read only after the last
    update was sent off.
    """
    mesh = meshes.mesh_of(state.params)
    pending: list[dict[str, jax.Array]] = []
    for rows in batches:
        state, metrics = step(state, put_batch(pack(rows, packing, mesh.shape["data"]), mesh))
        pending.append(metrics)
    return state, [{k: float(v) for k, v in m.items()} for m in jax.device_get(pending)]
