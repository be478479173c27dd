"""How malloc treats the memory that XLA frees on a CPU."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def has_tpu() -> bool:
    """Whether this machine has a TPU, whatever is installed; asked without waking it."""
    return any(Path("/dev").glob("accel*")) or (any(Path("/dev/vfio").glob("[0-9]*")) and not has_gpu())


def has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def has_accelerator() -> bool:
    return has_tpu() or has_gpu()


def keep_freed() -> None:
    """On a CPU let malloc keep what XLA frees, instead of giving it back to the kernel.

    XLA allocates a step's temporary memory anew each time, and glibc maps and unmaps it: every page is then
    faulted in and zeroed again, a third of the time of a tiny model's step. Must come before the first array.
    """
    if has_accelerator():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)  # arenas of other threads are too small, and would map
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
