"""Where arrays live: a (data, fsdp, tensor) mesh, and rules from logical axes to mesh axes."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftmix_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis → mesh axis. Axes that are not here are not split.
RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "feed_forward": "tensor",
}


@dataclasses.dataclass
class MeshConfig:
    """Devices along each axis; -1 (at most one) takes what the others leave."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices. Raises UserError if the sizes do not multiply to their number."""
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(config, len(devices))
    from jax.experimental import mesh_utils

    grid = mesh_utils.create_device_mesh(sizes, devices=devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES)


def axis_sizes(config: MeshConfig, devices: int) -> list[int]:
    """Devices along each axis. Raises UserError if they do not multiply to `devices`."""
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are positive, and at most one is -1")
    if devices % fixed or (-1 not in sizes and fixed != devices):
        raise UserError(
            f"mesh {dict(zip(AXES, sizes, strict=True))} needs a multiple of {fixed} devices, "
            f"there are {devices}; "
            "set --config.mesh.data, .fsdp and .tensor so that they multiply to it"
        )
    return [devices // fixed if size == -1 else size for size in sizes]


def sharding(mesh: Mesh, axes: Sequence[str | None]) -> NamedSharding:
    """Where an array with these logical axes lives."""
    return NamedSharding(mesh, PartitionSpec(*(RULES.get(axis) if axis else None for axis in axes)))


def param_shardings(mesh: Mesh, params: Any, axes: Any) -> Any:
    """A sharding for each parameter. Raises UserError for an axis that the mesh cannot divide."""

    def one(path: Any, param: Any, names: tuple[str, ...]) -> NamedSharding:
        axes: list[str | None] = []
        for size, name in zip(param.shape, names, strict=True):
            split = RULES.get(name)
            parts = mesh.shape[split] if isinstance(split, str) else 1
            if size % parts and name != "vocab":
                raise UserError(
                    f"{jax.tree_util.keystr(path)}: its axis '{name}' of size {size} cannot be divided by "
                    f"mesh.{split}={parts}; choose a divisor of {size}"
                )
            axes.append(name if size % parts == 0 else None)  # vocabularies have odd sizes: then not split
        return sharding(mesh, axes)

    return jax.tree_util.tree_map_with_path(one, params, axes)


def gather(mesh: Mesh, weight: jax.Array, axes: Sequence[str], dtype: Any) -> jax.Array:
    """A weight in the compute dtype, whole along fsdp, as a layer multiplies with it; its gradient comes back split.

    Left to itself the compiler gathers a weight for every product that it stands in: two in a layer's backward pass.
    """
    if mesh.shape["fsdp"] == 1:
        return weight.astype(dtype)
    split, whole = sharding(mesh, axes), sharding(mesh, [None if axis == "embed" else axis for axis in axes])
    return _gather(weight, jnp.dtype(dtype), split, whole)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(weight: jax.Array, dtype: Any, split: NamedSharding, whole: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(weight.astype(dtype), whole)


def _gather_forward(
    weight: jax.Array, dtype: Any, split: NamedSharding, whole: NamedSharding
) -> tuple[jax.Array, jax.Array]:
    return _gather(weight, dtype, split, whole), jnp.zeros((), weight.dtype)


def _gather_backward(
    dtype: Any, split: NamedSharding, whole: NamedSharding, kept: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, split).astype(kept.dtype),)


_gather.defvjp(_gather_forward, _gather_backward)


def sum_parts(mesh: Mesh | None, parts: jax.Array, columns: str | None) -> jax.Array:
    """What each part of the batch has found for a weight [D, V], [P, D, V], summed and split as the weight is.

    `columns` is the logical axis of V.
    """
    if mesh is None or mesh.size == 1:
        return parts.sum(axis=0)

    def reduced(mine: jax.Array) -> jax.Array:
        mine = jax.lax.psum_scatter(mine[0], RULES["embed"], scatter_dimension=0, tiled=True)
        return jax.lax.psum(mine, "data") if mesh.shape["data"] > 1 else mine

    return jax.shard_map(
        reduced, mesh=mesh, in_specs=sharding(mesh, ("batch", None, columns)).spec,
        out_specs=sharding(mesh, ("embed", columns)).spec, check_vma=False,
    )(parts)  # fmt: skip


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def to_host(x: jax.Array) -> np.ndarray:
    """A whole array on every process, whichever of them hold its parts."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def put(x: np.ndarray, where: jax.sharding.Sharding) -> jax.Array:
    """A host array that every process has → device, split as `where` says."""
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def put_tree(tree: Any, abstract: Any) -> Any:
    """Host arrays → device, with the dtypes and shardings of `abstract`."""
    return jax.tree.map(lambda x, a: put(np.asarray(x).astype(a.dtype), a.sharding), tree, abstract)


def with_shardings(abstract: Any, shardings: Any, dtype: Any = None) -> Any:
    """Shapes that say where they live; in another dtype if one is given."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=where), abstract, shardings
    )


def put_rows(mesh: Mesh, *arrays: np.ndarray) -> list[jax.Array]:
    """Host arrays that every process has → device, split along their rows."""
    return [put(x, sharding(mesh, ("batch",))) for x in arrays]


def put_batch(mesh: Mesh, batch: dict[str, Any], global_rows: int) -> dict[str, jax.Array]:
    """This process's rows of a batch → global arrays [global_rows, T], split along the rows."""
    where = sharding(mesh, ("batch", None))
    return {
        key: jax.make_array_from_process_local_data(where, rows, (global_rows, *rows.shape[1:]))
        for key, rows in batch.items()
    }
