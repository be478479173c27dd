"""Where queries lie in a layer: the hidden state of each one's last token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sftmix_jax.models import decoder
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params


def hidden_states(
    config: Architecture, compute: Compute, params: Params, queries: Sequence[Sequence[int]], layer: int, rows: int = 16
) -> np.ndarray:
    """RMS-normalised states after `layer` layers at the last token of each query, float32 [queries, D].

    The model up to there is a model of `layer` layers: parameters are cut, nothing else changes.
    """
    cut = dataclasses.replace(config, num_layers=layer)
    definition, _, _ = decoder.build(cut, compute)
    own = dict(params)
    own["layers"] = jax.tree.map(lambda x: x[:layer], params["layers"])
    own["norm"] = np.full_like(params["norm"], 0 if config.norm_plus_one else 1)

    @jax.jit
    def last(params: Params, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        segments = (positions < lengths[:, None]).astype(jnp.int32)
        hidden = decoder.bind(definition, params)(tokens, segments, positions)
        return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0].astype(jnp.float32)

    size = -(-max(map(len, queries)) // 64) * 64
    found = []
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        tokens, lengths = np.zeros((rows, size), np.int32), np.ones(rows, np.int32)
        for row, query in enumerate(part):
            tokens[row, : len(query)], lengths[row] = query, len(query)
        found.append(np.asarray(last(own, tokens, lengths))[: len(part)])
    return np.concatenate(found)


def separation(states: np.ndarray, domains: Sequence[str], seed: int = 0) -> tuple[np.ndarray, dict[str, float]]:
    """t-SNE of the states, float32 [n, 2], and each domain's silhouette in the states themselves (cosine distance).

    A silhouette near 1: a domain lies apart; near 0: it overlaps with another; below: it lies among others.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_samples

    labels = np.array(domains)
    perplexity = min(30.0, (len(states) - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, metric="cosine").fit_transform(states)
    worth = silhouette_samples(states, labels, metric="cosine")
    return placed, {name: float(worth[labels == name].mean()) for name in dict.fromkeys(domains)}
