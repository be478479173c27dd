"""Next-token loss as sums, so that batches, parts and hosts add up exactly; divided at the very end."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sftmix_jax.models.llama import Llama

# The float32 logits that may exist at once on a device; more are worked through in chunks under remat.
LOGITS_BYTES = 256 * 2**20


class LossSums(NamedTuple):
    """Sums over the trained tokens of a batch, float32 [number of domains] each."""

    loss: Array
    tokens: Array


def token_losses(model: Llama, hidden: Array, targets: Array, batch_parts: int = 1) -> Array:
    """Cross-entropy of each target, float32 [B, T], from hidden states [B, T, D].

    `batch_parts`: into how many parts the mesh splits B.
    """
    B, T, _ = hidden.shape

    def chunk_losses(hidden: Array, targets: Array) -> Array:
        logits = model.logits(hidden)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    wanted = -(-(4 * B * T * model.config.vocab_size) // (batch_parts * LOGITS_BYTES))
    chunks = next(n for n in range(min(wanted, T), T + 1) if T % n == 0)
    with jax.named_scope("loss"):
        if chunks == 1:
            return chunk_losses(hidden, targets)
        hidden = jnp.moveaxis(hidden.reshape(B, chunks, T // chunks, -1), 1, 0)
        targets = jnp.moveaxis(targets.reshape(B, chunks, T // chunks), 1, 0)
        losses = jax.lax.map(lambda cut: jax.checkpoint(chunk_losses)(*cut), (hidden, targets))
        return jnp.moveaxis(losses, 0, 1).reshape(B, T)


def loss_sums(model: Llama, batch: dict[str, Array], domains: int, batch_parts: int = 1) -> LossSums:
    """Loss and trained tokens of each domain."""
    hidden = model(batch["tokens"], batch["segment_ids"], batch["positions"])
    losses = token_losses(model, hidden, batch["targets"], batch_parts)
    mask = batch["loss_mask"].astype(jnp.float32)
    mine = [mask * (batch["domain_ids"] == domain) for domain in range(domains)]
    return LossSums(jnp.stack([(losses * m).sum() for m in mine]), jnp.stack([m.sum() for m in mine]))
