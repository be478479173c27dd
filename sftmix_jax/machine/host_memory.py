"""What this machine has, asked without jax; and how malloc treats the memory that XLA frees on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_DEV, _PCI = Path("/dev"), Path("/sys/bus/pci/devices")

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def has_tpu() -> bool:
    """Whether this machine has a TPU, whatever is installed; asked without waking it."""
    nodes = (*_DEV.glob("accel*"), *(_DEV / "vfio").glob("[0-9]*"))
    return bool(nodes) and any(_is_tpu(vendor.parent) for vendor in _PCI.glob("*/vendor"))


def _is_tpu(device: Path) -> bool:
    """Of a PCI device. Other makers' NPUs are under /dev/accel too; Google's own disks and networks are no TPUs."""
    is_google = (device / "vendor").read_text().strip() == "0x1ae0"
    return is_google and not (device / "class").read_text().startswith(("0x01", "0x02"))


def has_gpu() -> bool:
    """Whether this process may use an NVIDIA GPU, or a driver for one; containers and WSL2 have other device nodes."""
    nodes = (*_DEV.glob("nvidia[0-9]*"), _DEV / "nvidiactl", _DEV / "dxg")
    return any(node.exists() for node in nodes) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


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
