"""A run that is killed and resumed is compared with one that is not; what differs is found and named."""

import jax
import numpy as np
from conftest import ROOT  # noqa: F401

from sftmix_jax import sharding
from sftmix_jax.sharding import MeshConfig
from sftmix_jax.training.batch_hash import batch_hash

RNG = np.random.default_rng(5)
BATCH = {name: RNG.integers(0, 1500, (4, 6)).astype(np.int32) for name in ("tokens", "targets", "loss_mask")}


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
    return x ^ (x >> 16)


def by_hand(batch) -> str:
    """The hash in Python's integers, value by value."""
    words = ""
    for salt in (0x9E3779B9, 0x7F4A7C15):
        total = 0
        for number, name in enumerate(sorted(batch)):
            for (row, column), value in np.ndenumerate(batch[name]):
                total += mix(int(value) ^ mix(mix(mix(salt + number) ^ row) ^ column))
        words += f"{total % 2**32:08x}"
    return words


def test_a_batch_hash_does_not_depend_on_the_mesh():
    for data, fsdp, tensor in ((2, 2, 2), (1, 4, 2), (1, 1, 8)):
        placed = sharding.put_batch(sharding.make_mesh(MeshConfig(data, fsdp, tensor)), BATCH, 4)
        assert batch_hash(placed) == by_hand(BATCH)


def test_a_batch_hash_changes_with_every_value_and_with_the_order_of_rows():
    hashes = {batch_hash(jax.device_put(BATCH))}
    for name in BATCH:
        for place in np.ndindex(4, 6):
            changed = {key: value.copy() for key, value in BATCH.items()}
            changed[name][place] += 1
            hashes.add(batch_hash(jax.device_put(changed)))
    hashes.add(batch_hash(jax.device_put({name: value[[1, 0, 2, 3]] for name, value in BATCH.items()})))
    renamed = {"tokens": BATCH["targets"], "targets": BATCH["tokens"], "loss_mask": BATCH["loss_mask"]}
    hashes.add(batch_hash(jax.device_put(renamed)))
    assert len(hashes) == 1 + 3 * 24 + 2
