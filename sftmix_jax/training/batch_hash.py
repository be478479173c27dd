"""A hash of a global batch as it lies on the devices: what a step was really fed with."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from sftmix_jax.machine.array_hash import SALTS, mix


def batch_hash(batch: Mapping[str, Array]) -> str:
    """Sixteen hexadecimal digits that change with any value of a batch and with the order of its rows.

    `batch`: arrays [B, T] of 32-bit numbers by name, sharded in any way over any number of processes. Every value is
    mixed with its name, row and column, and the mixed values are added modulo 2³². Integer sums do not depend on their
    order, so the hash does not depend on the mesh. All processes must call it.
    """
    return "".join(f"{int(word):08x}" for word in jax.device_get(_words(dict(batch))))


@jax.jit
def _words(batch: dict[str, Array]) -> list[Array]:
    values = jnp.stack([jax.lax.bitcast_convert_type(batch[name], jnp.uint32) for name in sorted(batch)])
    names, rows, columns = (jax.lax.broadcasted_iota(jnp.uint32, values.shape, axis) for axis in range(3))
    places = [mix(mix(mix(salt + names) ^ rows) ^ columns) for salt in map(jnp.uint32, SALTS)]
    return [mix(values ^ place).sum(dtype=jnp.uint32) for place in places]
