"""Floating-point operations of LLaMA, counted (a multiplication and an addition are two)."""

from __future__ import annotations

from sftmix_jax.models.llama import LlamaConfig


def matmul_params(config: LlamaConfig) -> int:
    """Parameters that every token is multiplied with: all but norms and the lookup of its embedding."""
    attention = config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    return config.num_layers * layer + config.vocab_size * config.hidden_size


def forward_per_token(config: LlamaConfig, length: float) -> float:
    """Of one token in a document of `length`; attention is causal, so a token sees half of it on average."""
    attention = 2 * 2 * config.num_layers * config.num_heads * config.head_dim * length / 2
    return 2 * matmul_params(config) + attention


def training_per_token(config: LlamaConfig, length: float) -> float:
    """Forward and backward, without what remat computes again."""
    return 3 * forward_per_token(config, length)
