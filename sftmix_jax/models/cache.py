"""The key/value cache: one slot a row, filled from the front, so that a row's numbers depend on that row alone.

Places are the last axis: both products of a decoding step then run along memory, which on a CPU makes them 1.6 (H = 8)
to 3.4 (H = 32) times faster than with [S, K, H].
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftmix_jax.models.architecture import Architecture
from sftmix_jax.parallel import sharding


class Cache(NamedTuple):
    """Keys and values, [L, B, K, H, S] each."""

    k: Array
    v: Array

    @property
    def size(self) -> int:
        return self.k.shape[4]


def empty(config: Architecture, slots: int, size: int, dtype: str) -> Cache:
    """A cache of zeros for so many rows of at most `size` tokens."""
    shape = (config.num_layers, slots, config.num_kv_heads, config.head_dim, size)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def empty_on(mesh: Mesh, config: Architecture, slots: int, size: int, dtype: str) -> Cache:
    """`empty` on the mesh: every device makes its own part, and no device or host ever holds the whole."""
    return _empty_at(placing(mesh, slots, config.num_kv_heads), config, slots, size, dtype)


@partial(jax.jit, static_argnames=("where", "config", "slots", "size", "dtype"))
def _empty_at(where: NamedSharding, config: Architecture, slots: int, size: int, dtype: str) -> Cache:
    return jax.lax.with_sharding_constraint(empty(config, slots, size, dtype), where)


def placing(mesh: Mesh, slots: int, kv_heads: int) -> NamedSharding:
    """Where a cache's arrays live: rows and heads are split as far as the mesh divides them."""
    batch = "batch" if slots % sharding.batch_parts(mesh) == 0 else None
    heads = "kv_heads" if kv_heads % mesh.shape["tensor"] == 0 else None
    return sharding.sharding(mesh, (None, batch, heads, None, None))


def insert(cache: Cache, k: Array, v: Array, slots: Array, mesh: Mesh) -> Cache:
    """Prefilled entries k, v [L, P, T, K, H] into the cache's slots, on every device from its own rows into its own.

    `slots` int32 [P] counts from the first slot of the row's device; rows for slots beyond its last are dropped.
    """

    def local(cache: Cache, k: Array, v: Array, slots: Array) -> Cache:
        T = k.shape[2]
        return Cache(*(
            whole.at[:, slots, :, :, :T].set(part.transpose(0, 1, 3, 4, 2), mode="drop")
            for whole, part in zip(cache, (k, v), strict=True)
        ))  # fmt: skip

    if mesh.size == 1:
        return local(cache, k, v, slots)
    where = placing(mesh, cache.k.shape[1], cache.k.shape[2]).spec
    rows = PartitionSpec(None, where[1], None, where[2], None)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(where, rows, rows, PartitionSpec(where[1])),
        out_specs=where, check_vma=False,
    )(cache, k, v, slots)  # fmt: skip


def append(cache: Cache, k: Array, v: Array, lengths: Array) -> Cache:
    """One new entry a row, k, v [L, B, 1, K, H], at each row's length int32 [B]."""
    rows = jnp.arange(k.shape[1])
    return Cache(*(
        whole.at[:, rows, :, :, lengths].set(part[:, :, 0].swapaxes(0, 1), mode="drop")
        for whole, part in zip(cache, (k, v), strict=True)
    ))  # fmt: skip


def head(cache: Cache, size: int) -> Cache:
    """The first `size` places of every row."""
    return Cache(cache.k[..., :size], cache.v[..., :size])


def put_head(cache: Cache, part: Cache) -> Cache:
    """The inverse of `head`."""
    return Cache(*(
        jax.lax.dynamic_update_slice(whole, cut, (0, 0, 0, 0, 0)) for whole, cut in zip(cache, part, strict=True)
    ))  # fmt: skip
