"""The trained parameters with their layers stacked, where layers run in a loop (`Decoder.scan`).

AdamW then sees a few arrays in the place of those of each layer: the update's program is as long as that of one layer,
and nothing is stacked, and taken apart again, in each update.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from pmc_jax.models import Decoder
from pmc_jax.models.layer_stack import plan_stack, stack_layers, stack_shapes, unstack_layers
from pmc_jax.training.recipe import Recipe


def is_stacked(model: Decoder, recipe: Recipe) -> bool:
    """Whether the state of a run is stacked. Adapters are not, and neither is what Adafactor trains: it takes the root
    mean square of an array's step.
    """
    return bool(model.scan) and can_be_stacked(model, recipe)


def can_be_stacked(model: Decoder, recipe: Recipe) -> bool:
    """Whether another kind of device has the state of a run stacked, or not stacked."""
    return bool(plan_stack(model.config.layers).layers) and not recipe.lora and recipe.optimizer == "adamw"


def stack_params(model: Decoder, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with their layers stacked. What is no layer's stays the very same array.

    Args:
        model: whose layers they are.
        params: arrays.
    """
    layers = model.config.layers
    like = stack_shapes(layers, params)
    return rebuild(params, like, functools.partial(stack_layers, layers))


def unstack_params(model: Decoder, params: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `stack_params`.

    Args:
        model: whose layers they are.
        params: arrays.
        like: the result's shapes and shardings.
    """
    return rebuild(params, like, lambda tree: unstack_layers(model.config.layers, tree, like))


def rebuild(params: dict[str, Any], like: dict[str, Any], change: Callable[..., Any]) -> dict[str, Any]:
    """What `change` makes of the subtrees of `params` that `like` does not have, laid out as `like`, and the others."""
    old = {name: x for name, x in params.items() if name not in like}
    if not old:
        return params
    new = {name: jax.tree.map(lambda x: x.sharding, x) for name, x in like.items() if name not in params}
    kept = {name: x for name, x in params.items() if name in like}
    return kept | jax.jit(change, out_shardings=new)(old)
