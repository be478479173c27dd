"""Floating-point operations of a decoder, counted (a multiplication and an addition are two)."""

from __future__ import annotations

from sftmix_jax.models import table
from sftmix_jax.models.architecture import Architecture


def forward_per_token(config: Architecture, length: float) -> float:
    """Of one token in a document of `length`; attention is causal, so a token sees half of it on average."""
    seen = sum(_seen(config.kind(layer).window, length) for layer in range(config.num_layers))
    return 2 * table.matmul_params(config) + 2 * 2 * config.num_heads * config.head_dim * seen


def _seen(window: int, length: float) -> float:
    """Tokens that a token attends to in one layer, on average over a document."""
    return window - window**2 / (2 * length) if 0 < window < length else length / 2


def training_per_token(config: Architecture, length: float, trained: float | None = None) -> float:
    """Forward and backward, without what remat computes again.

    `trained`: parameters of linear weights whose gradient is made; None for all. Every weight has two products, with
    its input and with the gradient of its output, and a trained one a third.
    """
    whole = 3 * forward_per_token(config, length)
    return whole if trained is None else whole - 2 * (table.matmul_params(config) - trained)
