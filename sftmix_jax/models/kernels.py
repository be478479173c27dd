"""Attention by a backend's own kernel, over a mesh, and the probe that compares it with the plain path.

Letters: B batch, T tokens, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.models import attention, gpu_attention
from sftmix_jax.models.attention import Scores
from sftmix_jax.parallel import sharding

# The kernels of each backend, in the order in which they are tried; then, and elsewhere, the plain path.
BY_BACKEND = {"tpu": ("splash",), "gpu": ("mosaic", "cudnn", "triton")}
NAMES = ("plain", *BY_BACKEND["tpu"], *BY_BACKEND["gpu"])
_LANES = 128  # of a TPU's vector unit: what head sizes and blocks are multiples of
_BLOCKS = (512, 256, 128)  # queries and keys at a time
_TOLERANCE = 0.03  # relative, in norm: bfloat16 has 8 bits, and both sides round


def lacks(name: str, scores: Scores) -> str:
    """The option of `scores` that this kernel does not have; empty if it has all."""
    if scores.cap and name in ("cudnn", "triton"):
        return "a soft cap on scores"
    return "windows" if scores.window and name in ("cudnn", "triton") else ""


def attend(name: str, mesh: Mesh, q: Array, k: Array, v: Array, segment_ids: Array, scores: Scores) -> Array:
    """`attention.attend` by the kernel of this name, each device with its own rows and heads.

    q [B, T, N, H], k and v [B, T, K, H], segment_ids int32 [B, T] → [B, T, N, H]. Rows that no block divides
    (T % 128), and options that the kernel lacks, go the plain way.
    """
    scores = scores.within(q.shape[1])
    if name == "plain" or q.shape[1] % _BLOCKS[-1] or lacks(name, scores):
        return attention.attend(q, k, v, segment_ids, scores)
    rows, queries, keys = (
        sharding.sharding(mesh, axes).spec
        for axes in (("batch", None), ("batch", None, "heads", None), ("batch", None, "kv_heads", None))
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"  # there some kernels are interpreted: slow, the same numbers
    by_name: dict[str, Callable[..., Array]] = {
        "splash": partial(_splash, scores=scores, interpret=on_cpu),
        "mosaic": partial(gpu_attention.mosaic, scores=scores),
        "cudnn": partial(gpu_attention.cudnn, scores=scores),
        "triton": partial(gpu_attention.triton, scores=scores, interpret=on_cpu),
    }
    return jax.shard_map(
        by_name[name], mesh=mesh, in_specs=(queries, keys, keys, rows), out_specs=queries, check_vma=False
    )(q, k, v, segment_ids)


def candidates(name: str) -> tuple[str, ...]:
    """This kernel and those that are tried after it; the plain path is the last."""
    for names in BY_BACKEND.values():
        if name in names:
            return (*names[names.index(name) :], "plain")
    return ("plain",)


def _block(length: int) -> int:
    """Queries and keys at a time in rows of `length` tokens; of rows that no block divides, the smallest."""
    return next((size for size in _BLOCKS if length % size == 0), _BLOCKS[-1])


def _splash(q: Array, k: Array, v: Array, segment_ids: Array, *, scores: Scores, interpret: bool) -> Array:
    """JAX's splash attention for TPUs, which skips the blocks above the diagonal and before the window."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    T, N, H = q.shape[1:]
    block = _block(T)
    mask = masks.LocalMask((T, T), (scores.window - 1, 0), 0) if scores.window else masks.CausalMask((T, T))
    run = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * N),
        block_sizes=kernels.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        ),
        attn_logits_soft_cap=scores.cap or None,
        interpret=interpret,
    )
    q = (q.astype(jnp.float32) * scores.scale).astype(q.dtype)
    padding = ((0, 0), (0, 0), (0, 0), (0, -H % _LANES))
    q, k, v = (jnp.pad(x.transpose(0, 2, 1, 3), padding) for x in (q, k, v))

    def row(q: Array, k: Array, v: Array, segments: Array) -> Array:
        return run(q, k, v, segment_ids=kernels.SegmentIds(segments, segments))

    out = jax.vmap(row)(q, k, v, segment_ids)
    return out[..., :H].transpose(0, 2, 1, 3)


@functools.lru_cache
def probe(
    name: str, mesh: Mesh, dtype: str, num_heads: int, num_kv_heads: int, head_dim: int, length: int, scores: Scores
) -> str:
    """What is wrong with this kernel on this mesh, compared with the plain path forward and backward; else nothing.

    Compared on rows of two blocks of the size that rows of `length` tokens are worked through in.
    """
    if name == "plain":
        return ""
    if missing := lacks(name, scores.within(length)):
        return f"does not support {missing}"
    try:
        error = _disagreement(name, mesh, dtype, num_heads, num_kv_heads, head_dim, length, scores)
    except Exception as failure:
        return f"does not run here ({str(failure).splitlines()[0][:200]})"
    return "" if error <= _TOLERANCE else f"differs from the plain path by {error:.1%}"


def _disagreement(
    name: str, mesh: Mesh, dtype: str, num_heads: int, num_kv_heads: int, head_dim: int, length: int, scores: Scores
) -> float:
    """Of values and gradients on packed rows with padding: the largest difference in norm, relative to plain."""
    B, T = sharding.batch_parts(mesh), 2 * _block(length)
    if scores.within(length).window:  # one that these shorter rows show, too
        scores = dataclasses.replace(scores, window=min(scores.window, T // 4))
    rng = np.random.default_rng(0)
    shapes = [(B, T, heads, head_dim) for heads in (num_heads, num_kv_heads, num_kv_heads)]
    q, k, v, direction = (rng.standard_normal(shape).astype(np.float32) for shape in (*shapes, shapes[0]))
    lengths = np.array([50, 100, 90, 16]) * T // 256
    segments = np.broadcast_to(np.repeat([1, 2, 3, 0], lengths), (B, T)).astype(np.int32)

    def run(name: str, q: Array, k: Array, v: Array, direction: Array, segments: Array) -> tuple[Array, ...]:
        inside = (segments > 0)[..., None, None]

        def total(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
            out = jnp.where(inside, attend(name, mesh, q, k, v, segments, scores), 0)
            return (out.astype(jnp.float32) * direction).sum(), out

        narrow = (x.astype(dtype) for x in (q, k, v))
        gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*narrow)
        return out, *gradients

    @partial(jax.jit, out_shardings=sharding.sharding(mesh, ()))
    def largest(*inputs: Array) -> Array:
        mine, plain = ([x.astype(jnp.float32) for x in run(each, *inputs)] for each in (name, "plain"))
        apart = [jnp.linalg.norm(a - b) / jnp.linalg.norm(b) for a, b in zip(mine, plain, strict=True)]
        return jnp.max(jnp.stack(apart))

    placed = [sharding.put(x, sharding.sharding(mesh, ("batch",))) for x in (q, k, v, direction, segments)]
    return float(largest(*placed))
