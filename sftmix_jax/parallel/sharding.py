"""Where arrays live: a (data, fsdp, tensor) mesh, and rules from logical axes to mesh axes."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, setting

AXES = ("data", "fsdp", "tensor")
MOST_TENSOR = 8  # parts along tensor that are chosen unasked: every product waits for their sums

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
    """Devices along each axis; -1 (at most one) takes what the others leave.

    Several TPU slices are the outer part of the data axis: 1 then stands for one part a slice.
    """

    data: int = setting(1, Integer(at_least=1, also=(-1,)), "devices with a copy of the weights each")
    fsdp: int = setting(-1, Integer(at_least=1, also=(-1,)), "devices over which weights and batch rows are sharded")
    tensor: int = setting(
        0,
        Integer(at_least=1, also=(0, -1)),
        "devices over which heads and feed-forward width are sharded; 0: 1, or for a batch with fewer rows than "
        "devices as few as let it be divided",
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if [self.data, self.fsdp, self.tensor].count(-1) > 1:
            yield f"{where}: data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}; at most one may be -1"


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices. Raises UserError if the sizes do not multiply to their number."""
    from jax.experimental import mesh_utils

    devices = jax.devices() if devices is None else devices
    slices = _count_slices(devices)
    data, fsdp, tensor = axis_sizes(config, len(devices), slices)
    if slices == 1:
        grid = mesh_utils.create_device_mesh((data, fsdp, tensor), devices=devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            (data // slices, fsdp, tensor), (slices, 1, 1), devices=devices, allow_split_physical_axes=True
        )
    return Mesh(grid, AXES)


def fitted(config: MeshConfig, devices: Sequence[jax.Device], rows: int, width: int) -> MeshConfig:
    """The mesh with `tensor` chosen where it is open: the fewest parts that divide `width` and let `rows` be divided.

    1 if none do. Heads and feed-forward axes are `width` wide or a multiple of it.
    """
    if config.tensor or config.fsdp != -1:
        return config
    data = max(config.data, _count_slices(devices))
    for tensor in range(1, MOST_TENSOR + 1):
        parts, rest = divmod(len(devices), tensor)
        if not rest and width % tensor == 0 and parts % data == 0 and rows % parts == 0:
            return dataclasses.replace(config, tensor=tensor)
    return config


def _count_slices(devices: Sequence[jax.Device]) -> int:
    """Sets of TPU chips that no link joins."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def axis_sizes(config: MeshConfig, devices: int, slices: int = 1) -> list[int]:
    """Devices along each axis. Raises UserError if they do not multiply to `devices`."""
    sizes = [slices if config.data == 1 else config.data, config.fsdp, config.tensor or 1]
    fixed = math.prod(size for size in sizes if size != -1)
    if devices % fixed or (-1 not in sizes and fixed != devices):
        raise UserError(
            f"mesh {dict(zip(AXES, sizes, strict=True))} needs a multiple of {fixed} devices, "
            f"there are {devices}; "
            "set --config.mesh.data, .fsdp and .tensor so that they multiply to it"
        )
    sizes = [devices // fixed if size == -1 else size for size in sizes]
    if sizes[0] % slices:
        raise UserError(f"mesh.data={sizes[0]}: {slices} slices are joined along it; choose a multiple of {slices}")
    return sizes


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


def host() -> jax.Device:
    """This process's CPU, or its first device where JAX_PLATFORMS leaves the CPU out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


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
