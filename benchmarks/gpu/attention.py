"""Attention kernels alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.measuring import Line, random_array, seconds
from benchmarks.gpu.sizes import Size, packed_rows
from sftmix_jax.models import kernels
from sftmix_jax.models.attention import Scores
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig


def attention(size: Size, kernel: str, heads: tuple[int, int, int]) -> Line:
    """One kernel on packed rows, forward, and forward with backward; what it misses of float32's plain path."""
    N, K, H = heads
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    shape = (size.rows, size.length)
    q, k, v, direction = (random_array((*shape, n, H), size.dtype, i) for i, n in enumerate((N, K, K, N)))
    segments = packed_rows(size, size.rows, 1)["segment_ids"]
    inside = jnp.asarray(segments > 0)[..., None, None]

    def run(name: str, q: Any, k: Any, v: Any) -> Any:
        return jnp.where(inside, kernels.attend(name, mesh, q, k, v, segments, Scores(H**-0.5)), 0)

    def total(name: str, q: Any, k: Any, v: Any, direction: Any) -> Any:
        return (run(name, q, k, v).astype(jnp.float32) * direction).sum()

    def gradients(name: str) -> Any:
        return jax.jit(jax.grad(partial(total, name), argnums=(0, 1, 2)))

    forward, backward = jax.jit(partial(run, kernel)), gradients(kernel)
    compiled, both = seconds(lambda: backward(q, k, v, direction), 9)
    alone = seconds(lambda: forward(q, k, v), 9)[1]
    with jax.default_matmul_precision("highest"):
        wide = [x.astype(jnp.float32) for x in (q, k, v)]
        wanted = [jax.jit(partial(run, "plain"))(*wide), *gradients("plain")(*wide, direction)]
    found = [x.astype(jnp.float32) for x in (forward(q, k, v), *backward(q, k, v, direction))]
    error = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(found, wanted, strict=True))
    # Each query meets half of its document on average: two products forward, five more backward.
    lengths = np.unique(segments + 10_000 * np.arange(size.rows)[:, None], return_counts=True)[1]
    counted = 2 * 2 * N * H * float((lengths.astype(np.float64) ** 2).sum()) / 2
    rates = f"{counted / alone / 1e12:6.1f} {3.5 * counted / both / 1e12:6.1f}"
    times = f"{alone * 1e3:8.2f} ms {both * 1e3:8.2f} ms"
    return {"text": f"{times}  {rates}  error {error:.1e}  first call {compiled:.1f} s"}
