"""Rotary positions: frequencies of each kind, their tables, and the rotation of queries and keys."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from sftmix_jax.models.architecture import Rope


def rotated(rope: Rope, head_dim: int) -> int:
    """How many numbers of a head are rotated."""
    return int(head_dim * rope.part)


def frequencies(rope: Rope, head_dim: int) -> Array:
    """Angular frequency of each rotated pair, float32 [rotated/2]."""
    size = rotated(rope, head_dim)
    plain = 1.0 / rope.theta ** (jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    match rope.kind:
        case "default":
            return plain
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _llama3(rope, plain)
        case "yarn":
            kept = 1 - _yarn_ramp(rope, size)
            return plain / rope.factor * (1 - kept) + plain * kept
        case "longrope":
            return plain / np.asarray(rope.short_factors, np.float32)
    raise ValueError(f"no rope kind {rope.kind!r}")


def _llama3(rope: Rope, plain: Array) -> Array:
    """Llama 3.1: wavelengths over the old context are divided by `factor`, short ones kept, others interpolated."""
    wavelength = 2 * math.pi / plain
    turns = rope.original_length / wavelength
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = jnp.clip(smooth, 0.0, 1.0)
    return plain * (smooth + (1 - smooth) / rope.factor)


def _yarn_ramp(rope: Rope, size: int) -> np.ndarray:
    """0 for pairs that turn often over the original context, 1 for slow ones (Peng et al., 2023), [size/2]."""

    def pair(turns: float) -> float:
        return size * math.log(rope.original_length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    return np.clip((np.arange(size // 2) - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)


def tables(rope: Rope, positions: Array, head_dim: int) -> tuple[Array, Array]:
    """Cosine and sine of each position's angles, float32 [B, T, 1, rotated/2]."""
    turning = frequencies(rope, head_dim)
    angles = positions[..., None, None].astype(jnp.float32) * turning
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return (cos, sin) if rope.magnitude == 1 else (cos * rope.magnitude, sin * rope.magnitude)


def rotate(rope: Rope, x: Array, tables: tuple[Array, Array]) -> Array:
    """Apply rotary positions to x [B, T, heads, H], in float32."""
    cos, sin = tables
    size = 2 * cos.shape[-1]
    wide = x[..., :size].astype(jnp.float32)
    if rope.interleaved:
        first, second = wide[..., ::2], wide[..., 1::2]
        pairs = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        turned = pairs.reshape(wide.shape)
    else:  # halves are paired, as in Hugging Face's LLaMA
        first, second = jnp.split(wide, 2, axis=-1)
        turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    turned = turned.astype(x.dtype)
    return jnp.concatenate([turned, x[..., size:]], axis=-1) if size < x.shape[-1] else turned
