"""How jax is set up in every command: which machines it looks for, and that nothing is compiled twice."""

from __future__ import annotations

import os
from pathlib import Path

from sftmix_jax.host_memory import has_accelerator

_SECONDS = 0.5  # what compiles faster is not worth a file


def set_up() -> None:
    """On a machine without an accelerator jax does not wake a TPU's driver that is only installed to plan with."""
    import jax

    if not has_accelerator() and not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")
    keep_compiled()


def options(platform: str) -> dict[str, bool]:
    """What XLA is told about programs that train on this platform.

    TPU: its pass that makes values narrower as early as it can would copy all weights to bfloat16 before the loop over
    the layers, which casts the one that it needs: 0.5 GiB a chip for 7B on 16, 1.3 GiB on 8.
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
