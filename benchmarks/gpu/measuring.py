"""Seconds of calls, memory at its peak, random arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Line = dict[str, Any]  # what one line measures: `tokens` per second, or `text`; peak and note


def seconds(run: Callable[[], Any], rounds: int = 3) -> tuple[float, float]:
    """The first call with its compilation, and the median of some rounds after it."""
    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begin)
    return taken[0], float(np.median(taken[1:]))


FLIGHT = 10  # calls that are under way at once: one at a time would measure its launch too


def rate(run: Callable[[], Any]) -> float:
    """Seconds of a call among several."""
    return seconds(lambda: [run() for _ in range(FLIGHT)], 5)[1] / FLIGHT


def random_array(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def peak() -> float:
    """Bytes of the device that were in use at most; 0 where it does not say."""
    return float((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
