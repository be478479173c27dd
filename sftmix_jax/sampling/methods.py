"""Logits → token. Each row has its own temperature, nucleus and randomness."""

from __future__ import annotations

from enum import Enum

import jax
import jax.numpy as jnp
from jax import Array


class Method(Enum):
    """The least that a batch needs; a row's token does not depend on which of them is run."""

    GREEDY = "greedy"
    TEMPERATURE = "temperature"
    NUCLEUS = "nucleus"


def choose(method: Method, logits: Array, temperature: Array, top_p: Array, keys: Array) -> Array:
    """Next tokens int32 [B] from float32 logits [B, V]; temperature and top_p [B], keys uint32 [B, 2].

    Temperature 0 takes the most likely token.
    """
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if method is Method.GREEDY:
        return best
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)[:, None]
    if method is Method.NUCLEUS:
        scaled = jnp.where(in_nucleus(scaled, top_p), scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    return jnp.where(temperature > 0, drawn, best)


def in_nucleus(logits: Array, top_p: Array) -> Array:
    """Which tokens are the fewest likeliest that together reach top_p, bool [B, V]; always at least one."""
    order = jnp.argsort(-logits, axis=-1)
    probabilities = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < top_p[:, None]).at[:, 0].set(True) | (top_p[:, None] >= 1)
    rank = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(kept, rank, axis=-1)
