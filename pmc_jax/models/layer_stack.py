"""Parameters of equal layers stacked, so that layers run in a loop and the compiler sees one of them.

A model file has a subtree a layer, `layer_0`, `layer_1`, ... Stacked, layers of one kind are one subtree, `stack_0`,
whose arrays have the layers in front. Where kinds alternate, such as a window on every other layer, a turn of the loop
is a whole period: `stack_0`, `stack_1`, ... Layers that are left over behind the last whole period stay as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pmc_jax.models.config import LayerKind


class StackPlan(NamedTuple):
    """Which layers are stacked.

    Attributes:
        period: kinds repeat after so many layers; so many stacks there are.
        layers: the first so many layers are in the stacks, a multiple of the period.
    """

    period: int
    layers: int


NO_STACK = StackPlan(0, 0)


def plan_stack(layers: tuple[LayerKind, ...]) -> StackPlan:
    """The stacks of a model's layers: the shortest period that there are two of, or none."""
    for period in range(1, len(layers) // 2 + 1):
        if all(kind == layers[i % period] for i, kind in enumerate(layers)):
            return StackPlan(period, len(layers) // period * period)
    return NO_STACK


# The axis of heads in a layer's weights into them, [D, heads, H], and out of them, [heads, H, D]: stacked, it and the
# head width behind it are one.
HEADS_AXIS = {"query": 1, "key": 1, "value": 1, "output": 0}


def stack_arrays(name: str, *arrays: jax.Array) -> jax.Array:
    """Arrays of equal shape, one after the other along a new first axis; weights into and out of heads as matrices,
    [D, heads * H] and [heads * H, D].
    """
    stacked = jnp.stack(arrays)
    if name not in HEADS_AXIS:
        return stacked
    heads = 1 + HEADS_AXIS[name]
    return stacked.reshape(*stacked.shape[:heads], -1, *stacked.shape[heads + 2 :])


def stack_layers(
    layers: tuple[LayerKind, ...], params: dict[str, Any], combine: Callable[..., Any] = stack_arrays
) -> dict[str, Any]:
    """The parameters with their layers stacked; as they are where they have been stacked before.

    Args:
        layers: the kind of each layer.
        params: a subtree `layer_i` for each layer, beside others.
        combine: (name, leaves of all layers) -> the leaf of their stack.
    """
    plan = plan_stack(layers)
    if not plan.layers or "stack_0" in params:
        return params
    stacked = {f"layer_{i}" for i in range(plan.layers)}
    rest = {name: x for name, x in params.items() if name not in stacked}

    def stack(j: int) -> Any:
        of_layers = (params[f"layer_{i}"] for i in range(j, plan.layers, plan.period))
        return jax.tree_util.tree_map_with_path(lambda path, *leaves: combine(path[-1].key, *leaves), *of_layers)

    return rest | {f"stack_{j}": stack(j) for j in range(plan.period)}


def unstack_layers(layers: tuple[LayerKind, ...], params: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """What `stack_layers` was given; the parameters as they are where they are not stacked.

    Args:
        layers: the kind of each layer.
        params: the result of `stack_layers`.
        like: a tree of the result's structure, whose leaves have its shapes.
    """
    plan = plan_stack(layers)
    if "stack_0" not in params:
        return params

    def layer(i: int) -> Any:
        stack = params[f"stack_{i % plan.period}"]
        return jax.tree.map(lambda x, shape: x[i // plan.period].reshape(shape.shape), stack, like[f"layer_{i}"])

    rest = {name: x for name, x in params.items() if not name.startswith("stack_")}
    return rest | {f"layer_{i}": layer(i) for i in range(plan.layers)}


def stack_shapes(layers: tuple[LayerKind, ...], params: dict[str, Any]) -> dict[str, Any]:
    """Shapes, dtypes and shardings of what `stack_layers` makes of arrays, or of their shapes and shardings."""
    shapes = jax.eval_shape(lambda tree: stack_layers(layers, tree), params)
    shardings = stack_layers(layers, jax.tree.map(lambda x: x.sharding, params), stack_sharding)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def stack_sharding(name: str, sharding: NamedSharding, *_: NamedSharding) -> NamedSharding:
    """Where a stack lies: each layer like the first one. Heads lie on devices, not parts of a head."""
    spec = list(sharding.spec)
    if name in HEADS_AXIS:
        head_width = 1 + HEADS_AXIS[name]
        del spec[head_width : head_width + 1]  # a spec may end before it
    return NamedSharding(sharding.mesh, PartitionSpec(None, *spec))
