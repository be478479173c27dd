"""How jax is set up in every command: which machines it looks for, and that nothing is compiled twice."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from pathlib import Path

from sftmix_jax.machine.host_memory import has_accelerator, has_gpu, has_tpu

_SECONDS = 0.05  # what compiles faster is not worth a file
_DRIVERS = {13: (580, 65), 12: (525, 60)}  # NVIDIA's, that each release of CUDA wants at least
_DRIVER = Path("/proc/driver/nvidia/version")


def set_up() -> None:
    """On a machine without an accelerator jax does not wake a TPU's driver that is only installed to plan with.

    On one with a GPU, a jax that was installed for it fails if it cannot use it, instead of going on with the CPU.
    """
    import jax

    if not os.environ.get("JAX_PLATFORMS"):
        if not has_accelerator():
            jax.config.update("jax_platforms", "cpu")
        elif has_gpu() and not has_tpu() and _cuda():
            jax.config.update("jax_platforms", "cuda,cpu")
            # jax logs the plugin's traceback, and fails for want of the plugin: `no_gpu` says why.
            logging.getLogger("jax._src.xla_bridge").addFilter(_is_no_plugin_error)
    keep_compiled()


def no_gpu(error: RuntimeError) -> str:
    """Why jax cannot use the GPU that it was set up for, and what to do; nothing if the error is another one."""
    said = str(error)
    if "Unable to initialize backend 'cuda'" not in said:
        return ""
    cuda, driver = _cuda(), _driver()
    wanted = _DRIVERS[cuda] if cuda else (0,)
    if driver and driver < wanted:
        older = f", or pip install 'sftmix-jax[cuda12]' in its place (from {_DRIVERS[12][0]} on)" if cuda == 13 else ""
        why = (
            f"the NVIDIA driver of this machine is {'.'.join(map(str, driver))}, and jax here is for CUDA {cuda}, "
            f"which wants {'.'.join(map(str, wanted))} or later: install a later driver{older}"
        )
    else:
        why = f"jax cannot use the GPU of this machine ({said.splitlines()[0][:300]})"
    return f"{why}; JAX_PLATFORMS=cpu runs on the CPU"


def _cuda() -> int:
    """The release of CUDA that jax was installed for, or 0."""
    return next((release for release in _DRIVERS if importlib.util.find_spec(f"jax_cuda{release}_plugin")), 0)


def _driver() -> tuple[int, ...]:
    """The version of NVIDIA's driver; empty where the system does not say."""
    found = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)", _DRIVER.read_text()) if _DRIVER.exists() else None
    return tuple(map(int, found[1].split("."))) if found else ()


def _is_no_plugin_error(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Jax plugin configuration error")


def options(platform: str) -> dict[str, bool]:
    """What XLA is told about programs that train on this platform.

    TPU: its pass that makes values narrower as early as it can would copy all weights to bfloat16 before the loop over
    the layers, which casts the one that it needs: 0.5 GiB per chip for 7B on 16, 1.3 GiB on 8.
    """
    return {"xla_jf_bf16_propagation": False} if platform == "tpu" else {}


def keep_compiled() -> None:
    """Keep compiled programs on disk, for the next start of the same command and for stages that share a shape.

    In $JAX_COMPILATION_CACHE_DIR if that is set, else in $SFTMIX_CACHE, else in the user's cache folder.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    import jax

    folder = Path(os.environ.get("SFTMIX_CACHE") or Path.home() / ".cache" / "sftmix_jax") / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
