"""A hash of a global batch as it lies on the devices: what a step was really fed with."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

_SALTS = (0x9E3779B9, 0x7F4A7C15)  # one 32-bit word of the hash each


def batch_hash(batch: Mapping[str, Array]) -> str:
    """Sixteen hexadecimal digits that change with any value of a batch and with the order of its rows.

    `batch`: arrays [B, T] of 32-bit numbers by name, sharded in any way over any number of processes. Every value is
    mixed with its name, row and column, and the mixed values are added modulo 2³². Integer sums do not depend on their
    order, so the hash does not depend on the mesh. All processes must call it.
    """
    return "".join(f"{int(word):08x}" for word in jax.device_get(_words(dict(batch))))


@jax.jit
def _words(batch: dict[str, Array]) -> list[Array]:
    words = []
    for salt in _SALTS:
        total = jnp.uint32(0)
        for number, name in enumerate(sorted(batch)):
            values = batch[name]
            rows = jax.lax.broadcasted_iota(jnp.uint32, values.shape, 0)
            columns = jax.lax.broadcasted_iota(jnp.uint32, values.shape, 1)
            place = _mix(_mix(_mix(jnp.uint32(salt + number)) ^ rows) ^ columns)
            bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
            total += _mix(bits ^ place).sum(dtype=jnp.uint32)
        words.append(total)
    return words


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words in which every input bit reaches every output bit: MurmurHash3's finalizer."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
