"""Supervised fine-tuning by data composition: stages, mixtures and DMT in JAX."""

import importlib
from typing import Any

__version__ = "0.1.0"
_IN_PYTHON = ("Sampler", "evaluate", "load", "results", "train")


def __getattr__(name: str) -> Any:
    """What `sftmix_jax.api` has; it imports jax, for which no command waits before it needs it."""
    if name not in _IN_PYTHON:
        raise AttributeError(f"module 'sftmix_jax' has no attribute {name!r}")
    return getattr(importlib.import_module("sftmix_jax.api"), name)
