"""A number that any change of a state's bits changes, the same on whatever devices the state lies."""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from pmc_jax.distributed import meshes

GOLDEN = np.uint32(0x9E3779B9)
WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # bytes of an element -> what its bits are read as


def mix(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """A bijection of uint32 that spreads every bit over all others (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def leaf_digest(x: jax.Array) -> jax.Array:
    """Two sums over the elements, modulo 2**32: their order does not matter.

    In the first each element is multiplied by an odd number of its own, so that no change of one element is lost.

    Returns:
        uint32 [2].
    """
    bits = jax.lax.bitcast_convert_type(x, WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    sums = jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32), jnp.sum(mix(bits + place * GOLDEN), dtype=jnp.uint32)
    return jnp.stack(sums)


@functools.partial(jax.jit, static_argnames="everywhere")
def leaf_values(x: jax.Array, everywhere: NamedSharding | None) -> tuple[jax.Array, jax.Array]:
    """`leaf_digest`, and whether all is finite: a program for each shape, of which a state has few.

    One program of all leaves would be as long as the model is deep: with adapters it compiled for over ten minutes.
    """
    finite = jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.floating) else jnp.bool_(True)
    values = leaf_digest(x), finite
    return values if everywhere is None else jax.lax.with_sharding_constraint(values, everywhere)


def digest(tree: Any) -> tuple[str, bool]:
    """The number of a tree of arrays, as hex, and whether all its floats are finite numbers.

    All processes of a run call this together.
    """
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree))
    on_mesh = isinstance(leaves[0].sharding, NamedSharding)
    everywhere = meshes.replicated_sharding(leaves[0].sharding.mesh) if on_mesh else None
    # One after the other: programs of several processes that are under way together may wait for each other for ever.
    sums_L2, finite_L = zip(*(meshes.gather(leaf_values(x, everywhere)) for x in leaves))
    salts_L = np.array([zlib.crc32(jax.tree_util.keystr(path).encode()) for path in paths], np.uint32)
    first_L, second_L = np.stack(sums_L2).T
    total = np.stack([first_L * (2 * salts_L + 1), mix(second_L ^ salts_L)]).sum(axis=1, dtype=np.uint32)
    return total.tobytes().hex(), bool(np.all(finite_L))
