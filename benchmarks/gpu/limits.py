"""What the card itself gives."""

from __future__ import annotations

import jax

from benchmarks.gpu.measuring import Line, random_array, rate
from benchmarks.gpu.sizes import Size


def limits(size: Size) -> Line:
    """FLOP/s of a large matrix product of random numbers, and bytes per second of a copy."""
    side = size.product
    a, b = (random_array((side, side), size.dtype, seed) for seed in (0, 1))
    product = jax.jit(lambda a, b: a @ b)
    copied = random_array((side, side, 4), "float32")
    copy = jax.jit(lambda x: x + 1)
    device = jax.devices()[0]
    return {
        "card": device.device_kind,
        "memory": (device.memory_stats() or {}).get("bytes_limit", float("inf")),
        "flops": 2 * side**3 / rate(lambda: product(a, b)),
        "bandwidth": 2 * copied.nbytes / rate(lambda: copy(copied)),
    }
