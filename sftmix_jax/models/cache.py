"""The key/value cache: one slot a row, filled from the front, so that a row's numbers depend on that row alone.

On CPUs and GPUs places are the last axis: both products of a decoding step then run along memory, which on a CPU makes
them 1.6 (H = 8) to 3.4 (H = 32) times faster than with [S, K, H]. On TPUs they come before the heads: XLA stores them
so to append to rows of different lengths, and would copy every layer into the other order for its products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.attention import Cache
from sftmix_jax.parallel import sharding


def empty(config: Architecture, slots: int, size: int, dtype: str, places_first: bool = False) -> Cache:
    """A cache of zeros for so many rows of at most `size` tokens."""
    heads = (config.num_kv_heads, config.head_dim)
    row = (size, *heads) if places_first else (*heads, size)
    shape = (config.num_layers, slots, *row)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), places_first)


def empty_on(mesh: Mesh, config: Architecture, slots: int, size: int, dtype: str) -> Cache:
    """`empty` on the mesh: every device makes its own part, and no device or host ever holds the whole."""
    return _empty_at(placing(mesh, slots, config.num_kv_heads), config, slots, size, dtype, has_places_first(mesh))


@partial(jax.jit, static_argnames=("where", "config", "slots", "size", "dtype", "places_first"))
def _empty_at(
    where: NamedSharding, config: Architecture, slots: int, size: int, dtype: str, places_first: bool
) -> Cache:
    return jax.lax.with_sharding_constraint(empty(config, slots, size, dtype, places_first), where)


def has_places_first(mesh: Mesh) -> bool:
    """Which order the caches of a mesh's devices have."""
    return mesh.devices.flat[0].platform == "tpu"


def placing(mesh: Mesh, slots: int, kv_heads: int) -> NamedSharding:
    """Where a cache's arrays live: rows and heads are split as far as the mesh divides them."""
    batch = "batch" if slots % sharding.batch_parts(mesh) == 0 else None
    heads = "kv_heads" if kv_heads % mesh.shape["tensor"] == 0 else None
    row = (None, heads, None) if has_places_first(mesh) else (heads, None, None)
    return sharding.sharding(mesh, (None, batch, *row))


def insert(cache: Cache, k: Array, v: Array, slots: Array, mesh: Mesh) -> Cache:
    """Prefilled entries k, v [L, P, T, K, H] into the cache's slots, on every device from its own rows into its own.

    `slots` int32 [P] counts from the first slot of the row's device; rows for slots beyond its last are dropped.
    """

    def local(cache: Cache, k: Array, v: Array, slots: Array) -> Cache:
        T = k.shape[2]

        def inserted(whole: Array, part: Array) -> Array:
            if cache.places_first:
                return whole.at[:, slots, :T].set(part, mode="drop")
            return whole.at[:, slots, :, :, :T].set(part.transpose(0, 1, 3, 4, 2), mode="drop")

        return _both(inserted, cache, k, v)

    if mesh.size == 1:
        return local(cache, k, v, slots)
    where = placing(mesh, cache.k.shape[1], k.shape[3]).spec
    rows = PartitionSpec(None, where[1], None, where[3 if cache.places_first else 2], None)
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(where, rows, rows, PartitionSpec(where[1])),
        out_specs=where,
        check_vma=False,
    )(cache, k, v, slots)


def append(cache: Cache, k: Array, v: Array, lengths: Array) -> Cache:
    """One new entry a row, k, v [L, B, 1, K, H], at each row's length int32 [B]."""
    rows = jnp.arange(k.shape[1])

    def appended(whole: Array, part: Array) -> Array:
        if cache.places_first:
            return whole.at[:, rows, lengths].set(part[:, :, 0], mode="drop")
        return whole.at[:, rows, :, :, lengths].set(part[:, :, 0].swapaxes(0, 1), mode="drop")

    return _both(appended, cache, k, v)


def head(cache: Cache, size: int) -> Cache:
    """The first `size` places of every row."""
    return jax.tree.map(lambda whole: whole[:, :, :size] if cache.places_first else whole[..., :size], cache)


def put_head(cache: Cache, part: Cache) -> Cache:
    """The inverse of `head`."""
    return jax.tree.map(lambda whole, cut: jax.lax.dynamic_update_slice(whole, cut, (0, 0, 0, 0, 0)), cache, part)


def _both(change: Callable[[Array, Array], Array], cache: Cache, k: Array, v: Array) -> Cache:
    return Cache(change(cache.k, k), change(cache.v, v), cache.places_first)
