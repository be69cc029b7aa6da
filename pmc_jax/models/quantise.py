"""Weights rounded to a few bits, as a model is for serving: what survives that, and what comes back.

Unlearning that moves weights by less than a rounding step is undone by rounding (Zhang et al., arXiv 2410.16454).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from pmc_jax.models.decoder import Decoder
from pmc_jax.models.family import Family
from pmc_jax.models.weights import Weight, layer_matrices

BITS = {"int8": 8, "int4": 4}


def round_rows(matrix_OI: jax.Array, bits: int) -> jax.Array:
    """A matrix rounded to integers of so many bits, symmetric, with a step for each output channel.

    The step of a row is its largest absolute value over 2^(bits-1) - 1, so that 0 stays 0 and the largest value stays.

    Args:
        matrix_OI: output channels in rows, as checkpoints have them.
        bits: 2 or more.

    Returns:
        The rounded values times their steps, in the matrix's dtype; computed in float32.
    """
    limit = 2 ** (bits - 1) - 1
    values_OI = matrix_OI.astype(jnp.float32)
    largest_O1 = jnp.max(jnp.abs(values_OI), axis=1, keepdims=True)
    step_O1 = jnp.where(largest_O1 > 0, largest_O1, 1.0) / limit
    return (jnp.round(values_OI / step_O1) * step_O1).astype(matrix_OI.dtype)


def quantise(family: Family, model: Decoder, params: Any, bits: int) -> Any:
    """The parameters with every matrix of attention and MLP rounded by `round_rows`.

    Embedding, head, norms and biases stay, as in the usual formats for serving; so do the parameters that were given.

    Args:
        family: whose weight table says what is an output channel.
        model: whose parameters they are.
        params: the tree, of any dtype and sharding.
        bits: of the integers.

    Returns:
        A tree of the same shapes and dtypes; what is not rounded is shared with `params`.
    """
    flat, sizes = traverse_util.flatten_dict(params, sep="/"), tuple(model.config.axis_sizes.items())
    for path, weight in layer_matrices(family, model).items():
        flat[path] = _rounded(weight.layout, sizes, bits, flat[path].sharding)(flat[path])
    return traverse_util.unflatten_dict(flat, sep="/")


@functools.lru_cache(maxsize=64)
def _rounded(weight: Weight, sizes: tuple, bits: int, sharding: Any) -> Any:
    """A jitted function that rounds one parameter."""

    def rounded(param: jax.Array) -> jax.Array:
        return weight.to_param(round_rows(weight.to_source(param, dict(sizes)), bits), dict(sizes))

    return jax.jit(rounded, out_shardings=sharding)
