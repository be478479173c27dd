"""Do two domains pull the parameters the same way? Cosines of their gradients, layer by layer."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.models import decoder, table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.training.loss import loss_sums

SIZE = 4096  # numbers that a group's gradient is sketched with; cosines are off by about 1/√SIZE = 0.016

Batch = dict[str, np.ndarray]
Sketches = dict[str, np.ndarray]  # group → float64 [SIZE]
Sketcher = Callable[[Params, Iterable[Batch]], Sketches]


def make_sketcher(config: Architecture, compute: Compute, mesh: Mesh) -> Sketcher:
    """A function from parameters and batches of one domain to sketches of its mean gradient.

    Groups: embed, attention and feed_forward of every layer, head. Only the sketches leave the device: a count sketch
    (Charikar et al. 2002) keeps inner products, so cosines too, without bias.
    """
    definition, abstract, axes = decoder.build(config, compute)
    where = sharding.param_shardings(mesh, abstract, axes)

    def total(params: Params, batch: dict[str, Array]) -> Array:
        return loss_sums(decoder.bind(definition, params, mesh), batch, 1)[0]

    @jax.jit
    def sketch(params: Params, batch: dict[str, Array]) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.grad(total)(params, batch)):
            names = [str(getattr(step, "key", step)) for step in path]
            key = jax.random.PRNGKey(zlib.crc32("/".join(names).encode()))
            if names[0] == "layers":
                kind = "feed_forward" if names[1] in table.FEED_FORWARD else "attention"
                for layer in range(config.num_layers):
                    group = f"layer {layer} {kind}"
                    out[group] = out.get(group, 0.0) + _folded(leaf[layer], jax.random.fold_in(key, layer))
            else:
                out[names[0]] = out.get(names[0], 0.0) + _folded(leaf, key)
        return out

    def run(params: Params, batches: Iterable[Batch]) -> Sketches:
        placed = jax.tree.map(jax.device_put, params, where)
        sums: Sketches = {}
        for batch in batches:
            rows = len(batch["tokens"])
            for group, value in jax.device_get(sketch(placed, sharding.put_batch(mesh, batch, rows))).items():
                sums[group] = sums.get(group, 0.0) + np.asarray(value, np.float64)
        return sums

    return run


def _folded(gradient: Array, key: Array) -> Array:
    """A gradient of any shape with random signs, added up into SIZE numbers, float32.

    Each starts at a random place, so that the large entries of two parameters do not meet.
    """
    flat = gradient.reshape(-1)
    rows = -(-flat.size // SIZE)
    signs = jax.random.rademacher(key, (rows * SIZE,), jnp.float32)
    padded = jnp.pad(flat, (0, rows * SIZE - flat.size))
    start = jax.random.randint(jax.random.fold_in(key, 1), (), 0, SIZE)
    return jnp.roll((padded * signs).reshape(rows, SIZE).sum(axis=0), start)


def cosines(sketches: dict[str, Sketches]) -> dict[str, dict[str, float]]:
    """Cosine of every pair of domains in every group: `a · b` → group → cosine."""
    names = list(sketches)
    out: dict[str, dict[str, float]] = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            out[f"{first} · {second}"] = {
                group: _cosine(sketches[first][group], sketches[second][group]) for group in sketches[first]
            }
    return out


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
