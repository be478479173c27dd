"""Next-token loss as sums, so that batches, parts and hosts add up exactly; divided at the very end.

Logits are made for the tokens that are trained on, chunk by chunk, and their gradient with them: fine-tuning masks
about half of its tokens, and the head is 2 % of a step (LLaMA 7B), a fifth (3.2 1B) or most of it (small models).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.models.decoder import Decoder
from sftmix_jax.parallel import fsdp, sharding

# The float32 logits that may exist at once on a device.
LOGITS_BYTES = 256 * 2**20
# Chunks are small enough to leave out what is masked, and hold so many tokens of a device that products stay large.
CHUNKS, CHUNK_TOKENS = 8, 512


class LossSums(NamedTuple):
    """Sums over the tokens of a batch by domain, float32 [number of domains] each; the loss is `loss / weight`."""

    loss: Array  # of weight × negative log-likelihood
    weight: Array  # of the tokens' weights: where each is 0 or 1, the number of trained tokens


def loss_sums(model: Decoder, batch: dict[str, Array], domains: int) -> tuple[Array, LossSums]:
    """The loss to differentiate, Σ weight × negative log-likelihood, and the same by domain to report."""
    hidden = model(batch["tokens"], batch["segment_ids"], batch["positions"])
    # Trained tokens first, row by row: the chunks behind the longest row's last are never worked through.
    order = jnp.argsort(batch["loss_weights"] == 0, axis=1, stable=True)
    targets, weights, domain_ids = (
        jnp.take_along_axis(batch[key], order, axis=1) for key in ("targets", "loss_weights", "domain_ids")
    )
    with jax.named_scope("loss"):
        total, losses = _cross_entropy(
            model.mesh, model.config.logit_cap, hidden, model.head_param, order, targets, weights
        )
    mine = [weights * (domain_ids == domain) for domain in range(domains)]
    return total, LossSums(jnp.stack([(losses * w).sum() for w in mine]), jnp.stack([w.sum() for w in mine]))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross_entropy(
    mesh: Mesh | None, cap: float, hidden: Array, head: Array, order: Array, targets: Array, weights: Array
) -> tuple[Array, Array]:
    """Returns the weighted sum of the cross-entropies, and each of them, float32 [B, T].

    Only the sum has a gradient. A cross-entropy is 0 where its weight is 0. hidden [B, T, D], head [D, V]; `order`
    int32 [B, T] sorts the tokens of a row, `targets` and `weights` float32 [B, T] are sorted so. `cap`: the soft cap on
    logits, 0 for none.
    """
    losses, _, _ = _in_chunks(mesh, cap, hidden, head, order, targets, weights, of=())
    return (losses * weights).sum(), losses


def _forward(
    mesh: Mesh | None, cap: float, hidden: Any, head: Any, order: Any, targets: Any, weights: Any
) -> tuple[tuple[Array, Array], tuple[Array, Array | None]]:
    """Arguments are primals with `value` and `perturbed`: a frozen head has no gradient."""
    of = ("hidden", "head") if head.perturbed else ("hidden",)
    values = (x.value for x in (hidden, head, order, targets, weights))
    losses, d_hidden, d_head = _in_chunks(mesh, cap, *values, of=of)
    return ((losses * weights.value).sum(), losses), (d_hidden, d_head if head.perturbed else None)


def _backward(
    mesh: Mesh | None, cap: float, kept: tuple[Array, Array | None], d_out: tuple[Array, Any]
) -> tuple[Array | None, ...]:
    d_total, (d_hidden, d_head) = d_out[0], kept
    of_head = None if d_head is None else (d_head * d_total).astype(d_head.dtype)
    return (d_hidden * d_total).astype(d_hidden.dtype), of_head, None, None, None


_cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def _in_chunks(
    mesh: Mesh | None,
    cap: float,
    hidden: Array,
    head: Array,
    order: Array,
    targets: Array,
    weights: Array,
    *,
    of: Collection[str],
) -> tuple[Array, Array, Array]:
    """Losses float32 [B, T] in the sorted order, and the gradients of their weighted sum: of `hidden` and of `head`.

    `of` names those that are wanted; another one is a placeholder.

    Letters: C chunks, P parts of the batch (one a device along its axes), n tokens of a part in a chunk. A part adds up
    its own gradient of the head; the parts are summed once, at the end.
    """
    B, T, _ = hidden.shape
    P = sharding.batch_parts(mesh) if mesh is not None else 1
    C = _chunks(B * T // P, T, head.shape[1])
    vocab = "vocab" if mesh is not None and head.shape[1] % mesh.shape["tensor"] == 0 else None

    def placed(x: Array, *axes: str | None) -> Array:
        return x if mesh is None else jax.lax.with_sharding_constraint(x, sharding.sharding(mesh, axes))

    def cut(x: Array) -> Array:
        """[B, T, …] → [C, P, n, …]"""
        x = x.reshape(P, B // P, C, T // C, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0).reshape(C, P, -1, *x.shape[4:])

    def joined(x: Array) -> Array:
        """[C, P, n, …] → [B, T, …]"""
        x = x.reshape(C, P, B // P, T // C, *x.shape[3:])
        return jnp.moveaxis(x, 0, 2).reshape(B, T, *x.shape[4:])

    whole_head = head.astype(hidden.dtype)
    if mesh is not None:
        whole_head = fsdp.make_whole(mesh, whole_head, ("embed", vocab))
    states = hidden.reshape(P, -1, hidden.shape[-1])
    places = cut(order + T * (jnp.arange(B) % (B // P))[:, None])  # in the sorted order, where a token's state stands
    targets, token_weights = cut(targets), cut(weights)
    put = jax.vmap(lambda whole, place, some: whole.at[place].set(some, unique_indices=True))

    def chunk(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        losses, d_hidden, d_head = carry
        place, target, weight = places[i], targets[i], token_weights[i]  # [P, n] each
        used = weight > 0
        # A chunk's at a time: all states of a 33B row at once do not go into a tpu7x core's vector memory.
        h = jnp.take_along_axis(states, place[..., None], axis=1)  # [P, n, D]
        logits = jnp.einsum("pnd,dv->pnv", h, whole_head, preferred_element_type=jnp.float32)
        if cap:
            logits = cap * jnp.tanh(logits / cap)
        most = logits.max(axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)
        unnormalised = jnp.exp(logits - most)
        total = unnormalised.sum(axis=-1, keepdims=True)
        losses = losses.at[i].set(jnp.where(used, (most + jnp.log(total) - chosen)[..., 0], 0.0))
        if of:
            hit = jnp.arange(logits.shape[-1]) == jnp.where(used, target, -1)[..., None]
            d_logits = unnormalised * (weight[..., None] / total) - hit * weight[..., None]
            if cap:
                d_logits *= 1 - (logits / cap) ** 2
            d_logits = d_logits.astype(h.dtype)
            d_hidden = put(d_hidden, place, jnp.einsum("pnv,dv->pnd", d_logits, whole_head))
            if "head" in of:
                d_head += jnp.einsum("pnd,pnv->pdv", h, d_logits, preferred_element_type=jnp.float32)
        return losses, d_hidden, d_head

    losses = jnp.zeros(targets.shape, jnp.float32)
    d_hidden = jnp.zeros_like(states if of else losses)
    d_head = jnp.zeros((P, *head.shape) if "head" in of else (P, 1, 1), jnp.float32)
    d_head = placed(d_head, "batch", None, vocab if "head" in of else None)
    longest = (weights > 0).sum(axis=1).max()
    losses, d_hidden, d_head = jax.lax.fori_loop(0, -(-longest // (T // C)), chunk, (losses, d_hidden, d_head))
    if of:
        d_hidden = d_hidden.reshape(hidden.shape)
    if "head" in of:
        d_head = fsdp.sum_parts(mesh, d_head.astype(hidden.dtype), ("embed", vocab)).astype(head.dtype)
        # Together: else the compiler keeps the parts, whole, until the layers' backward pass is done.
        d_hidden, d_head = jax.lax.optimization_barrier((d_hidden, d_head))
    return joined(losses), d_hidden, d_head


def _chunks(tokens: int, T: int, vocab: int) -> int:
    """Into how many chunks a row of T is cut, where a device holds so many tokens: a divisor of T."""
    least = max(-(-4 * tokens * vocab // LOGITS_BYTES), min(CHUNKS, tokens // CHUNK_TOKENS), 1)
    return next(count for count in range(min(least, T), T + 1) if T % count == 0)
