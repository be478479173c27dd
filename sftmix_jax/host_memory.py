"""How malloc treats the memory that XLA frees on a CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import sys

_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed() -> None:
    """On a CPU let malloc keep what XLA frees, instead of giving it back to the kernel.

    XLA allocates a step's temporary memory anew each time, and glibc maps and unmaps it: every page is then
    faulted in and zeroed again, a third of the time of a tiny model's step. Must come before the first array.
    """
    if any(importlib.util.find_spec(name) for name in _ACCELERATORS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)  # arenas of other threads are too small, and would map
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
