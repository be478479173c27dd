"""Weights sharded along fsdp: all-gathered for a product, their gradients reduce-scattered."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.parallel.sharding import RULES, batch_parts, sharding

AXIS = RULES["embed"]
MOST_PIECES = 32  # parts up to which the TPU compiler gathers weights, and scatters gradients, by itself


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(mesh: Mesh, rows: Array, weight: Array, axes: tuple[str, ...]) -> Array:
    """rows [B·T, I] times a weight (flat [I, O]) that lives split along fsdp; its gradient comes back split.

    Left to itself the compiler gathers a weight for every product that it stands in (two in a layer's backward pass),
    and with data parallelism beside fsdp it sums whole gradients before it cuts them.
    """
    return _product_forward(mesh, rows, weight, axes)[0]


def _product_forward(mesh: Mesh, rows: Array, weight: Array, axes: tuple[str, ...]) -> tuple[Array, tuple[Array, ...]]:
    whole = make_whole(mesh, weight.astype(rows.dtype), axes)
    return rows @ whole.reshape(rows.shape[1], -1), (rows, whole, jnp.zeros((), weight.dtype))


def _product_backward(
    mesh: Mesh, axes: tuple[str, ...], kept: tuple[Array, ...], d_product: Array
) -> tuple[Array, Array]:
    rows, whole, like = kept
    d_rows = d_product @ whole.reshape(rows.shape[1], -1).T
    if mesh.shape["data"] > 1 or _is_large(mesh):
        d_weight = _scattered(mesh, rows, d_product, whole.shape, axes)
    else:  # the compiler multiplies and sums piece by piece, which the explicit sum would keep it from
        d_weight = (rows.T @ d_product).reshape(whole.shape)
        d_weight = jax.lax.with_sharding_constraint(d_weight, sharding(mesh, axes))
    return d_rows, d_weight.astype(like.dtype)


def _scattered(mesh: Mesh, rows: Array, d_product: Array, shape: tuple[int, ...], axes: tuple[str, ...]) -> Array:
    """The weight's gradient, split as the weight is; each part of the batch multiplies its own rows."""
    sides = [x.reshape(batch_parts(mesh), -1, x.shape[-1]) for x in (rows, d_product)]
    embed = axes.index("embed")
    if embed != 0:
        sides.reverse()
    parts = jnp.einsum("pnd,pno->pdo", *sides)
    names = [axis for axis in axes if axis != "embed"]
    sizes = [size for size, axis in zip(shape, axes, strict=True) if axis != "embed"]
    summed = sum_parts(mesh, parts.reshape(*parts.shape[:2], *sizes), ("embed", *names))
    return jnp.moveaxis(summed, 0, embed)


product.defvjp(_product_forward, _product_backward)


def make_whole(mesh: Mesh, weight: Array, axes: tuple[str | None, ...]) -> Array:
    """A weight as a layer multiplies with it: whole along fsdp.

    Gathered by name: where a weight is only said to be whole, the compiler for tpu7x passes it on while it multiplies,
    in nine pieces over eight devices where seven would do.
    """
    embed = axes.index("embed")

    def gathered(mine: Array, axis: int) -> Array:
        for groups in reversed(_lines(mesh)):
            mine = jax.lax.all_gather(mine, AXIS, axis=axis, tiled=True, axis_index_groups=groups)
        return mine

    return jax.shard_map(
        lambda mine: _as_matrix(partial(gathered, axis=0), embed, mine) if _is_large(mesh) else gathered(mine, embed),
        mesh=mesh,
        in_specs=sharding(mesh, axes).spec,
        out_specs=sharding(mesh, _gathered(axes)).spec,
        check_vma=False,
    )(weight)


def sum_parts(mesh: Mesh | None, parts: Array, axes: tuple[str | None, ...]) -> Array:
    """What each part of the batch has found for a weight, [P, D, …], summed and split along D.

    Within a slice each device sums its own cut, and only those cuts are summed between slices.
    """
    if mesh is None or mesh.size == 1:
        return parts.sum(axis=0)

    def scattered(mine: Array) -> Array:
        for groups in _lines(mesh):
            mine = jax.lax.psum_scatter(mine, AXIS, tiled=True, axis_index_groups=groups)
        return jax.lax.psum(mine, "data") if mesh.shape["data"] > 1 else mine

    return jax.shard_map(
        lambda mine: _as_matrix(scattered, 0, mine[0]) if _is_large(mesh) else scattered(mine[0]),
        mesh=mesh,
        in_specs=sharding(mesh, ("batch", *_gathered(axes))).spec,
        out_specs=sharding(mesh, axes).spec,
        check_vma=False,
    )(parts)


def _gathered(axes: Sequence[str | None]) -> list[str | None]:
    return [None if axis == "embed" else axis for axis in axes]


def _as_matrix(change: Callable[[Array], Array], embed: int, weight: Array) -> Array:
    """`change` of [embed, everything else], in the weight's own shape again.

    Chips keep the last two axes in tiles of 8 × 128: line by line, the compiler sums whole what is cut along another
    axis or has 52 heads. Over all parts at once it is the other way about, and a weight keeps its own axes.
    """
    first = jnp.moveaxis(weight, embed, 0)
    changed = change(first.reshape(first.shape[0], -1))
    return jnp.moveaxis(changed.reshape(-1, *first.shape[1:]), 0, embed)


def _is_large(mesh: Mesh) -> bool:
    """Whether the compiler, left alone, sums whole weights where it could gather or scatter them."""
    return mesh.shape[AXIS] > MOST_PIECES and len(box(mesh)) > 1


def _lines(mesh: Mesh) -> list[list[list[int]] | None]:
    """For each physical axis that fsdp lies along, which of its parts stand in one line; None for all of them.

    One line after the other, the TPU compiler passes on what is asked for; over the whole box it sums instead.
    """
    if not _is_large(mesh):
        return [None]
    sides = box(mesh)
    parts = np.arange(mesh.shape[AXIS]).reshape(sides)
    return [np.moveaxis(parts, axis, -1).reshape(-1, side).tolist() for axis, side in enumerate(sides)]


def box(mesh: Mesh) -> list[int]:
    """The sides of the box of chips that fsdp's parts fill in order; all of them as one side if they fill none."""
    devices = mesh.devices[0, :, 0]
    places = [(*(getattr(device, "coords", None) or ()), getattr(device, "core_on_chip", 0)) for device in devices]
    sides = [len(set(along)) for along in zip(*places, strict=True)]
    if places != sorted(places) or math.prod(sides) != len(places):
        return [len(places)]
    return [side for side in sides if side > 1]
