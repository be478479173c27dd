"""Two sides of a comparison in alternating rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 7


def alternate(name: str, unit: str, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    """Time both in turn, each once before to compile and warm up; a call returns the work that it did.

    Prints the medians of work a second and their ratio; above 1, sftmix_jax is faster.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 1):
        for side, call in zip(rates, (ours, theirs), strict=True):
            begin = time.perf_counter()
            work = call()
            if round_:
                side.append(work / (time.perf_counter() - begin))
    mine, other = map(statistics.median, rates)
    print(f"{name:40} {mine:10,.0f} {other:10,.0f} {unit:16} {mine / other:6.2f}×", flush=True)


def heading() -> None:
    print(f"{'':40} {'sftmix_jax':>10} {'torch':>10} {'':16} {'ratio':>7}")
