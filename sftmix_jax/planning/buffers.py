"""The large buffers of a program on one device, by arithmetic: what a GPU's memory is judged from.

No GPU compiler runs without a GPU, and temporaries of a program that is compiled for a CPU say nothing of it: there
bfloat16 is widened to float32. State is counted from the shapes; here stands what a program takes besides.

Letters: D hidden size, F feed-forward size, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.models import table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.training.loss import LOGITS_BYTES
from sftmix_jax.training.precision import Precision
from sftmix_jax.training.trainable import Path

_GATHERED = 3  # layers that are whole at once over a mesh: one used, one on its way, one's gradients


def training(
    how: Tuning,
    compute: Compute,
    kept: Precision,
    mesh: Mapping[str, int],
    *,
    rows: int,
    length: int,
    grad_accum_steps: int,
) -> dict[str, float]:
    """Bytes of a device in a training step, besides state and batch, by name."""
    size, tensor, split = _itemsize(compute.dtype), mesh["tensor"], mesh["fsdp"] * mesh["tensor"]
    tokens = rows * length / (mesh["data"] * mesh["fsdp"] * grad_accum_steps)
    config, trains_head = how.base, how.is_full or (("embed",) if how.base.tied else ("head",)) in _trained(how)
    weights = how.num_trained() / split * _itemsize(kept.gradients)
    L, D, F = config.num_layers, config.hidden_size, config.intermediate_size
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    layer = 14 * D + (2 * heads + 4 * F) / tensor  # numbers of a token that the backward pass of a layer wants
    saved = {"none": layer, "dots": 4 * D + (heads + 2 * F) / tensor, "full": D, "offload": 0}[compute.remat]
    return {
        "gradients": weights * (2 if grad_accum_steps > 1 else 1),
        "weights as they are multiplied": weights if kept.params != kept.gradients else 0,
        "layers' weights": _layers(config, compute, kept.gradients if how.is_full else how.frozen_dtype, mesh),
        "activations": tokens * L * saved * size,
        "a layer's activations": tokens * layer * size,
        "logits": _logits(config, compute, tokens, tensor)
        + (4 * D * config.vocab_size / tensor if trains_head else 0),  # the head's gradient
    }


def validation(
    how: Tuning, compute: Compute, kept: Precision, mesh: Mapping[str, int], *, rows: int, length: int
) -> dict[str, float]:
    """Bytes of a device in a step that measures the validation loss, besides the state."""
    config = how.base
    tokens = rows * length / (mesh["data"] * mesh["fsdp"])
    return {
        "layers' weights": _layers(config, compute, kept.params if how.is_full else how.frozen_dtype, mesh),
        "a layer's activations": _passing(config, compute, tokens, mesh["tensor"]),
        "logits": _logits(config, compute, tokens, mesh["tensor"]),
    }


def prefill(
    config: Architecture, compute: Compute, mesh: Mapping[str, int], *, rows: int, size: int, cache: int
) -> dict[str, float]:
    """Bytes of a device where prompts of `size` tokens are read into all rows of a cache of so many bytes."""
    tokens = rows * size / (mesh["data"] * mesh["fsdp"])
    return {
        "layers' weights": _layers(config, compute, compute.dtype, mesh),
        "a layer's activations": _passing(config, compute, tokens, mesh["tensor"]),
        "keys and values, before they are in the cache": cache,
    }


def decode(config: Architecture, mesh: Mapping[str, int], *, rows: int, part: int) -> dict[str, float]:
    """Bytes of a device in the sampler's steps; `part`: of the part of the cache that lies beside it as a copy."""
    tokens = rows / (mesh["data"] * mesh["fsdp"])
    return {"a part of the cache": part, "logits": 3 * 4 * tokens * config.vocab_size}


def _trained(how: Tuning) -> Collection[Path]:
    return how.trainable.chosen or ()


def _itemsize(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _layers(config: Architecture, compute: Compute, dtype: str, mesh: Mapping[str, int]) -> float:
    """Of the layers' weights that are whole, or cast, at once."""
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied else 2)
    layer = (table.num_params(config) - embeddings) / config.num_layers * _itemsize(compute.dtype) / mesh["tensor"]
    if mesh["fsdp"] > 1:
        return _GATHERED * layer
    return layer if dtype != compute.dtype else 0


def _passing(config: Architecture, compute: Compute, tokens: float, tensor: int) -> float:
    """Of activations in a forward pass that keeps nothing."""
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    numbers = 4 * config.hidden_size + max(2 * heads, 3 * config.intermediate_size) / tensor
    return tokens * numbers * _itemsize(compute.dtype)


def _logits(config: Architecture, compute: Compute, tokens: float, tensor: int) -> float:
    """Of a chunk's logits, float32 and exponentials, and their gradients; and of the head they are made with."""
    head = config.hidden_size * config.vocab_size / tensor * _itemsize(compute.dtype)
    return 2.5 * min(LOGITS_BYTES, 4 * tokens * config.vocab_size / tensor) + head
