"""Attention kernels for NVIDIA GPUs: causal, within the documents of packed rows.

Letters: B batch, T tokens, N query heads, K key/value heads, H head size, M documents per row.
All take q [B, T, N, H], k and v [B, T, K, H] and segment_ids int32 [B, T], and give [B, T, N, H]. Padding counts as a
document, so that its outputs are finite.
"""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
from jax import Array

from sftmix_jax.models import attention
from sftmix_jax.models.attention import Scores

_SHORTEST_MEAN = 32  # tokens per document, on average over a row: with more documents cuDNN's offsets do not suffice


def mosaic(q: Array, k: Array, v: Array, segment_ids: Array, *, scores: Scores) -> Array:
    """tokamax's FlashAttention in Pallas Mosaic GPU: Hopper and Blackwell, bfloat16.

    Its public function takes documents as a dense mask alone; the operation below it takes the first key of every
    query, and skips the blocks before it.
    """
    from tokamax._src.ops.attention.base import Mask
    from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention

    logging.getLogger("absl").addFilter(_is_no_cache_miss)
    starts = document_starts(segment_ids)
    if scores.window:
        starts = jnp.maximum(starts, jnp.arange(q.shape[1], dtype=jnp.int32) - scores.window + 1)
    mask = Mask(k_start=starts[:, None], is_causal=True)
    return PallasMosaicGpuFlashAttention()(
        q, k, v, mask=mask, logits_scale=scores.scale, logits_soft_cap=scores.cap or None
    )


def _is_no_cache_miss(record: logging.LogRecord) -> bool:
    """tokamax warns of every shape that was not tuned before. Its defaults were the fastest that were tried."""
    return not str(record.msg).startswith("Autotuning cache miss")


def cudnn(q: Array, k: Array, v: Array, segment_ids: Array, *, scores: Scores) -> Array:
    """cuDNN's FlashAttention with a ragged offset per document: Hopper and later, bfloat16.

    The number of offsets is fixed when the program is compiled. Rows with more documents take the plain path.
    """
    from jax._src.cudnn import fused_attention_stablehlo as fused

    B, T = segment_ids.shape
    M = max(T // _SHORTEST_MEAN, 2)
    is_first = document_starts(segment_ids) == jnp.arange(T)
    starts = jax.vmap(lambda row: jnp.nonzero(row, size=M, fill_value=-1)[0])(is_first).astype(jnp.int32)
    ends = jnp.concatenate([starts[:, 1:], jnp.full((B, 1), -1, jnp.int32)], axis=1)
    lengths = jnp.where(starts < 0, -1, jnp.where(ends < 0, T, ends) - starts)
    offsets = jnp.concatenate([starts, jnp.full((B, 1), -1, jnp.int32)], axis=1)

    def packed(q: Array, k: Array, v: Array) -> Array:
        return fused.dot_product_attention(
            q,
            k,
            v,
            q_seqlen=lengths,
            kv_seqlen=lengths,
            q_offsets=offsets,
            kv_offsets=offsets,
            scale=scores.scale,
            mask_type=fused.MaskType.PADDING_CAUSAL,
        )

    def plain(q: Array, k: Array, v: Array) -> Array:
        return attention.attend(q, k, v, segment_ids, scores)

    return jax.lax.cond(is_first.sum(axis=1).max() <= M, packed, plain, q, k, v)


def triton(q: Array, k: Array, v: Array, segment_ids: Array, *, scores: Scores, interpret: bool) -> Array:
    """JAX's FlashAttention in Pallas Triton: any GPU since Ampere. It has no grouped heads: keys are repeated."""
    from jax.experimental.pallas.ops.gpu import attention as kernels

    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    # bfloat16: with the default backward blocks of 32, forward and backward take 1.7 times as long (H100, H = 128).
    # Of float32 blocks of that size do not go into its shared memory.
    wide = q.dtype.itemsize * q.shape[3] > 256
    blocks = kernels.BlockSizes(64, 32, 32, 32, 32, 32) if wide else kernels.BlockSizes(128, 128, 64, 64, 64, 64)
    return kernels.mha(
        q, k, v, segment_ids, sm_scale=scores.scale, causal=True, block_sizes=blocks, interpret=interpret
    )


def document_starts(segment_ids: Array) -> Array:
    """Of every token the place where its document begins in the row, int32 [B, T]. Documents are contiguous."""
    places = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    before = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return jax.lax.cummax(jnp.where(segment_ids != before, places, 0), axis=1)
