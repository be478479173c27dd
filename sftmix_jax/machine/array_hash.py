"""Hashes of arrays as they lie on the devices: each device reads its own part, whatever the mesh.

Every value is mixed with its place, and the mixed values are added modulo 2³². Integer sums do not depend on their
order, so a hash depends on the values and their places alone. It notices damage and differences; it keeps no secrets.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

SALTS = (0x9E3779B9, 0x7F4A7C15)  # a 32-bit word of the hash each
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def tree_digest(tree: Any) -> str:
    """A SHA-256 of the paths, shapes, dtypes and hashes of all arrays of a tree. All processes must call it."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    total = hashlib.sha256()
    for path, leaf, words in zip(paths, leaves, jax.device_get(_all_words(leaves)), strict=True):
        add(total, path, leaf, words)
    return total.hexdigest()


def add(total: hashlib._Hash, path: str, leaf: Array, words: Any) -> None:
    """One array's part of `tree_digest`."""
    total.update(f"{path} {leaf.shape} {leaf.dtype} ".encode())
    total.update(b"".join(int(word).to_bytes(4, "big") for word in words))


@jax.jit
def _all_words(leaves: list[Array]) -> list[Array]:
    return [words(x) for x in leaves]


@jax.jit
def words(x: Array) -> Array:
    """The hash of one array of integers or floating-point numbers of at most 32 bits, uint32 [2]."""
    values = x.astype(jnp.uint32)
    if x.dtype != bool:
        values = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros_like(values)
    for axis in range(x.ndim):
        place = mix(place ^ jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis))
    return jnp.stack([mix(values ^ mix(place + jnp.uint32(salt))).sum(dtype=jnp.uint32) for salt in SALTS])


def mix(x: Array) -> Array:
    """A bijection of 32-bit words in which every input bit reaches every output bit: MurmurHash3's finalizer."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
