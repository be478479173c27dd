"""What XLA has compiled before is not compiled again."""

from __future__ import annotations

import os
from pathlib import Path

_SECONDS = 0.5  # what compiles faster is not worth a file


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
