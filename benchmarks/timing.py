"""Two sides of a comparison in alternating rounds, each in a process of its own, as its users run it."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

ROUNDS = 7
Round = Callable[[], float]  # does a round and returns its work


def alternate(name: str, unit: str, ours: Callable[[], Round], theirs: Callable[[], Round]) -> None:
    """Time both in turn, each once before to compile and warm up.

    A side is made in its process by calling it there: sides must be picklable (partials of module functions).
    While one side runs the other waits. Prints the medians of work a second and their ratio; above 1,
    sftmix_jax is faster.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=_serve, args=(side, far), daemon=True)
        for side, (_, far) in zip((ours, theirs), pipes, strict=True)
    ]
    for process, (_, far) in zip(processes, pipes, strict=True):
        process.start()
        far.close()  # the process has its own; with ours gone, its end is seen here
    for round_ in range(ROUNDS + 1):
        for side, (near, _) in zip(rates, pipes, strict=True):
            near.send("round")
            try:
                rate = near.recv()
            except (EOFError, ConnectionResetError):
                raise SystemExit(f"{name}: one side ended with an error, above") from None
            if round_:
                side.append(rate)
    for (near, _), process in zip(pipes, processes, strict=True):
        near.send("end")
        process.join()
    mine, other = map(statistics.median, rates)
    print(f"{name:40} {mine:10,.0f} {other:10,.0f} {unit:16} {mine / other:6.2f}×", flush=True)


def _serve(side: Callable[[], Round], pipe: Connection) -> None:
    run = side()
    while pipe.recv() == "round":
        begin = time.perf_counter()
        work = run()
        pipe.send(work / (time.perf_counter() - begin))


def heading(other: str = "torch") -> None:
    print(f"{'':40} {'sftmix_jax':>10} {other:>11} {'':15} {'ratio':>7}", flush=True)
