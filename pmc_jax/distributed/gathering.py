"""Weights that are sharded over `data`, gathered once for a whole pass over the model instead of in each layer."""

import functools
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec


def without_data(sharding: NamedSharding) -> NamedSharding:
    """The same layout, replicated over `data`."""
    return NamedSharding(sharding.mesh, PartitionSpec(*(None if axis == "data" else axis for axis in sharding.spec)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, without_data(sharding))


def _forward(x: jax.Array, sharding: NamedSharding) -> tuple[jax.Array, None]:
    return _gather(x, sharding), None


def _backward(sharding: NamedSharding, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    # Left to itself, JAX would want the gradient whole on every device too.
    return (jax.lax.with_sharding_constraint(gradient, sharding),)


_gather.defvjp(_forward, _backward)


def gather_over_data(params: Any, shardings: tuple[NamedSharding, ...]) -> Any:
    """Parameters that lie whole on every row of the mesh; their gradients are scattered again.

    Args:
        params: laid out as `shardings` say.
        shardings: of the leaves, in their order.
    """
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, map(_gather, leaves, shardings))
