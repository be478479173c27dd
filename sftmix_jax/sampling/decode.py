"""Prefill and the decode loop: tokens only, compiled, no text."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.models import cache as caches
from sftmix_jax.models import decoder
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.attention import Cache
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Decoder, Params
from sftmix_jax.sampling.methods import Method, choose

STEPS = 32  # tokens of a row between two looks at the finished rows


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the programs are compiled for, apart from shapes."""

    config: Architecture
    compute: Compute
    mesh: Mesh

    def model(self, params: Params) -> Decoder:
        """The model with these parameters, to be called within a program."""
        return decoder.bind(decoder.build(self.config, self.compute)[0], params, self.mesh)


class Prompts(NamedTuple):
    """The rows of a prefill: padded prompts, where they go, and how their tokens are drawn; arrays [P, …]."""

    tokens: Any  # int32 [P, T]
    length: Any  # int32
    slot: Any  # int32: within its part of the cache; beyond the last for a row of padding
    temperature: Any  # float32
    top_p: Any  # float32
    key: Any  # uint32 [P, 2]


class Slots(NamedTuple):
    """The rows being decoded; small arrays [B, …] that the host owns between calls."""

    token: Any  # int32: the last token chosen, not yet in the cache
    length: Any  # int32: places of the cache that are filled
    left: Any  # int32: tokens that may still be produced
    active: Any  # bool
    temperature: Any  # float32
    top_p: Any  # float32
    key: Any  # uint32 [B, 2]
    count: Any  # int32: tokens produced

    @classmethod
    def empty(cls, slots: int) -> Slots:
        """All slots free."""
        ints = np.zeros(slots, np.int32)
        return cls(
            ints,
            ints,
            ints,
            np.zeros(slots, bool),
            np.zeros(slots, np.float32),
            np.ones(slots, np.float32),
            np.zeros((slots, 2), np.uint32),
            ints,
        )

    def replaced(self, rows: np.ndarray, values: Slots) -> Slots:
        """These rows with new values; host arrays."""
        out = Slots(*(np.array(field) for field in self))
        for field, value in zip(out, values, strict=True):
            field[rows] = value
        return out

    def after(self, found: np.ndarray) -> tuple[Slots, np.ndarray]:
        """The rows as `decode` leaves them, from its [B, STEPS + 5], and the tokens int32 [B, STEPS]; host arrays."""
        produced, (token, length, left, active, count) = found[:, :-5], found[:, -5:].T.copy()
        changed = {"token": token, "length": length, "left": left, "active": active > 0, "count": count}
        return self._replace(**changed), produced


class Until(NamedTuple):
    """When decoding ends."""

    stops: Any  # int32 [S]: tokens that end a row
    enough: Any  # int32: return early once no more than so many rows are active, so that free slots can be filled again


@partial(jax.jit, static_argnames=("setup", "method"), donate_argnames="cache")
def prefill(setup: Setup, method: Method, params: Params, cache: Cache, prompts: Prompts) -> tuple[Cache, Array]:
    """Read prompts into the cache's slots and choose the first token of each, int32 [P]."""
    model, length = setup.model(params), prompts.length
    hidden, (k, v) = model.prefill(prompts.tokens, length)
    last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
    keys = _step_keys(prompts.key, jnp.zeros_like(length))
    first = choose(method, model.logits(last), prompts.temperature, prompts.top_p, keys)
    return caches.insert(cache, k, v, prompts.slot, setup.mesh), first


@partial(jax.jit, static_argnames=("setup", "method", "span"), donate_argnames="cache")
def decode(
    setup: Setup, method: Method, params: Params, cache: Cache, slots: Slots, until: Until, *, span: int
) -> tuple[Cache, Array]:
    """At most STEPS tokens for every active row. → cache, and int32 [B, STEPS + 5] for `Slots.after`.

    The second holds the tokens, -1 for none, and what has changed of the slots: one array, so that the host waits for
    one transfer. Only the first `span` places of the cache are read.
    """
    model = setup.model(params)

    def going_on(carry: tuple[Array, Cache, Slots, Array]) -> Array:
        step, _, slots, _ = carry
        return (step < STEPS) & (slots.active.sum() > until.enough)

    def one(carry: tuple[Array, Cache, Slots, Array]) -> tuple[Array, Cache, Slots, Array]:
        step, cache, slots, produced = carry
        hidden, (k, v) = model.decode(slots.token, cache, slots.length)
        cache = caches.append(cache, k, v, slots.length)
        token = choose(
            method, model.logits(hidden[:, 0]), slots.temperature, slots.top_p, _step_keys(slots.key, slots.count)
        )
        produced = produced.at[:, step].set(jnp.where(slots.active, token, -1))
        moved = slots.active.astype(jnp.int32)
        left = slots.left - moved
        active = slots.active & (left > 0) & ~(token[:, None] == until.stops).any(axis=1)
        slots = slots._replace(
            token=jnp.where(slots.active, token, slots.token),
            length=slots.length + moved,
            left=left,
            active=active,
            count=slots.count + moved,
        )
        return step + 1, cache, slots, produced

    produced = jnp.full((slots.token.shape[0], STEPS), -1, jnp.int32)
    part = caches.head(cache, span)
    _, part, slots, produced = jax.lax.while_loop(going_on, one, (jnp.int32(0), part, slots, produced))
    changed = (slots.token, slots.length, slots.left, slots.active.astype(jnp.int32), slots.count)
    return caches.put_head(cache, part), jnp.concatenate([produced, jnp.stack(changed, axis=1)], axis=1)


@partial(jax.jit, static_argnames="setup")
def log_likelihoods(setup: Setup, params: Params, tokens: Array, lengths: Array) -> tuple[Array, Array]:
    """log p of each token given those before, float32 [P, T] (0 at the first and beyond the length),
    and whether it was the likeliest, bool [P, T]."""
    model = setup.model(params)
    T = tokens.shape[1]
    segment_ids = (jnp.arange(T) < lengths[:, None]).astype(jnp.int32)
    hidden = model(tokens, segment_ids, jnp.broadcast_to(jnp.arange(T), tokens.shape))
    logits = jax.nn.log_softmax(model.logits(hidden[:, :-1]), axis=-1)
    targets = tokens[:, 1:]
    found = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    found = jnp.where(segment_ids[:, 1:] > 0, found, 0.0)
    best = jnp.argmax(logits, axis=-1) == targets
    return jnp.pad(found, ((0, 0), (1, 0))), jnp.pad(best, ((0, 0), (1, 0)))


def _step_keys(keys: Array, count: Array) -> Array:
    """A key for each row's next token: a function of the request's seed and of how many came before."""
    return jax.vmap(jax.random.fold_in)(keys, count)
