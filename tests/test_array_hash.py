"""Hashes of arrays: against the definition in plain Python, over meshes, and changed by every value and place."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sftmix_jax.machine import array_hash
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig

WORD = 2**32
TREE = {
    "count": np.int32(7),
    "narrow": np.asarray(jnp.linspace(-2, 3, 24, dtype=jnp.bfloat16)).reshape(4, 6),
    "wide": np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32),
}


def mixed(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x85EBCA6B % WORD
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % WORD
    return x ^ (x >> 16)


def by_hand(tree) -> str:
    total = hashlib.sha256()
    for name in sorted(tree):
        array = np.asarray(tree[name])
        sums = [0, 0]
        for index in np.ndindex(array.shape):
            place = 0
            for axis in index:
                place = mixed(place ^ axis)
            value = int.from_bytes(array[index].tobytes(), "little")
            for i, salt in enumerate((0x9E3779B9, 0x7F4A7C15)):
                sums[i] = (sums[i] + mixed(value ^ mixed((place + salt) % WORD))) % WORD
        total.update(f"['{name}'] {array.shape} {array.dtype} ".encode())
        total.update(b"".join(word.to_bytes(4, "big") for word in sums))
    return total.hexdigest()


def test_a_tree_hashes_as_defined_on_any_mesh():
    wanted = by_hand(TREE)
    assert array_hash.tree_digest(jax.tree.map(jnp.asarray, TREE)) == wanted
    mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices()[:8])
    for spec in (("data", "fsdp"), ("fsdp", ("data", "tensor")), ()):
        where = {"count": PartitionSpec(), "narrow": PartitionSpec("data"), "wide": PartitionSpec(None, *spec)}
        placed = {name: jax.device_put(TREE[name], NamedSharding(mesh, where[name])) for name in TREE}
        assert array_hash.tree_digest(placed) == wanted


@pytest.mark.parametrize("name", list(TREE))
def test_every_bit_of_a_value_its_place_shape_and_name_change_the_hash(name):
    seen = {array_hash.tree_digest(TREE)}
    array = np.asarray(TREE[name])
    for bit in range(8 * array.itemsize):
        changed = array.copy().reshape(-1)
        changed.view(f"u{array.itemsize}")[-1] ^= 1 << bit
        seen.add(array_hash.tree_digest({**TREE, name: changed.reshape(array.shape)}))
    if array.ndim:
        seen.add(array_hash.tree_digest({**TREE, name: array[::-1]}))
        seen.add(array_hash.tree_digest({**TREE, name: array.reshape(-1)}))
    seen.add(array_hash.tree_digest({key + "x" * (key == name): value for key, value in TREE.items()}))
    assert len(seen) == 8 * array.itemsize + 2 + 2 * bool(array.ndim)
