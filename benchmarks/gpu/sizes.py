"""The sizes that are measured, and rows of documents to measure them with."""

from __future__ import annotations

import dataclasses

import numpy as np

from sftmix_jax.data import packing

MEAN_LENGTH, TRAINED_SHARE = 188, 0.5
RANK = 16  # of LoRA's adapters, beside all linear weights of the layers


@dataclasses.dataclass(frozen=True)
class Size:
    small: str  # presets of sftmix_jax.models.families
    large: str
    adapted: str  # the one that LoRA is measured on
    dtype: str
    rows: int
    length: int
    product: int  # side of the square matrices that the rate is measured with
    place: int  # tokens that each row has before decoding
    batches: tuple[int, ...]
    heads: tuple[tuple[int, int, int], ...]  # query heads, key/value heads, head size


FULL = Size(
    "llama3.2-1b",
    "7b",
    "llama3-8b",
    "bfloat16",
    4,
    2048,
    8192,
    512,
    (1, 64),
    ((32, 32, 128), (32, 8, 128), (32, 8, 64)),
)
TINY = Size("micro", "tiny", "tiny", "float32", 4, 256, 1024, 64, (1, 8), ((4, 2, 64),))


def packed_rows(size: Size, rows: int, vocabulary: int) -> dict[str, np.ndarray]:
    """A batch of random tokens in documents of real lengths."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN_LENGTH) - 0.32, 0.8, 64 * rows), 8, size.length).astype(np.int64)
    plan = packing.pack(lengths, size.length, "best_fit", 0)
    names = ("tokens", "targets", "segment_ids", "positions", "domain_ids", "loss_weights")
    batch = {name: np.zeros((rows, size.length), "float32" if "weights" in name else "int32") for name in names}
    for row in range(rows):
        at = 0
        for document, member in enumerate(plan.members[plan.starts[row] : plan.starts[row + 1]], 1):
            n = int(lengths[member])
            own = slice(at, at + n)
            batch["segment_ids"][row, own], batch["positions"][row, own] = document, np.arange(n)
            batch["loss_weights"][row, at + int(n * (1 - TRAINED_SHARE)) : at + n] = 1
            at += n
    for key in ("tokens", "targets"):
        batch[key] = rng.integers(0, vocabulary, batch[key].shape).astype(np.int32)
    return batch
