"""One line in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.measuring import Line
from sftmix_jax.machine import compilation


def _answer(answers: Any, measure: Callable[[], Line]) -> None:
    compilation.set_up()
    try:
        answers.put(measure())
    except ModuleNotFoundError as error:
        answers.put(f"skipped: {error.name} is not installed")
    except Exception as error:
        said = str(error)
        fits = not any(word in said for word in ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory"))
        answers.put(f"{type(error).__name__}: {said.splitlines()[0][:160] if said else ''}" if fits else "does not fit")


def alone(measure: Callable[[], Line], until: float) -> Line | str:
    """A line in a process of its own, which gives all its memory back; or why there is none."""
    if time.monotonic() > until:
        return "no time left"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_answer, args=(answers, measure), daemon=True)
    process.start()
    try:
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=0.2)
            if not process.is_alive() and answers.empty():
                return f"ended with code {process.exitcode}"
        return "not done in time"
    finally:
        process.kill()
        process.join()
