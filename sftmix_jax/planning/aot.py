"""Compile the training step for machines that are not here, with their own compiler; nothing is allocated."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from sftmix_jax import sharding
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.models.llama import Compute, LlamaConfig
from sftmix_jax.planning import chips, collectives
from sftmix_jax.planning.chips import Chip
from sftmix_jax.sharding import MeshConfig
from sftmix_jax.training import precision
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import make_trainer

# Shapes that are offered where a name is not understood.
TOPOLOGIES = (
    "v4:2x2x2", "v4:2x2x4", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16", "v5p:2x2x1",
    "v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:4x4x8", "v6e:2x4", "v6e:4x4", "v6e:4x8", "v6e:8x8",
    "v6e:8x16", "v6e:16x16", "tpu7x:2x2x1", "tpu7x:2x2x2", "tpu7x:2x2x4", "tpu7x:4x4x4",
)  # fmt: skip
_KEYS = ("tokens", "targets", "loss_mask", "segment_ids", "positions", "domain_ids")
_TOO_LARGE = re.compile(r"[Uu]sed ([\d.]+)([GM]) of ([\d.]+)([GM])")


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice (or several) of a kind of chip."""

    name: str
    chip_name: str
    chip: Chip
    devices: tuple[Any, ...]
    slices: int

    @property
    def chips(self) -> int:
        return len(self.devices) // self.chip.devices


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step; bytes of one device."""

    fits: bool
    arguments: int  # parameters, optimiser state, batch
    temporaries: int  # gradients, activations, gathered weights
    limit: int
    collectives: dict[str, int]
    seconds: float  # of compiling
    message: str = ""  # where it does not fit

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries


def find_topology(name: str, slices: int = 1) -> Topology:
    """`v5p:2x2x4` → its devices, as the TPU compiler knows them. Raises UserError."""
    kind, _, shape = name.partition(":")
    if kind not in chips.CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(f"topology '{name}': {did_you_mean(name, TOPOLOGIES)}")
    # The compiler asks the machine for its neighbours; here there are none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["megacore"] = True  # both cores of a v4 chip are one device
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        if "libtpu" in str(error) or isinstance(error, ImportError):
            raise UserError("the TPU compiler is not installed: pip install 'sftmix-jax[plan]'") from None
        first = str(error).splitlines()[0]
        raise UserError(f"topology '{name}': {did_you_mean(name, TOPOLOGIES)} (the compiler says: {first})") from None
    return Topology(name, kind, chips.find_chip(kind), tuple(described.devices), slices)


def make_mesh(topology: Topology, config: MeshConfig) -> Mesh:
    """The training mesh; several slices are the outer part of the data axis."""
    if topology.slices == 1:
        return sharding.make_mesh(config, topology.devices)
    from jax.experimental import mesh_utils

    inside = len(topology.devices) // topology.slices
    sizes = sharding.axis_sizes(config, inside)
    grid = mesh_utils.create_hybrid_device_mesh(
        sizes, (topology.slices, 1, 1), devices=list(topology.devices), allow_split_physical_axes=True
    )
    return Mesh(grid, sharding.AXES)


def compile_step(
    config: LlamaConfig, compute: Compute, optimizer: OptimizerConfig, mesh: Mesh, topology: Topology, *,
    rows: int, length: int, domains: int, accumulation: int,
) -> Compiled:  # fmt: skip
    """The very step that training jits, for `rows` rows a step."""
    trainer = make_trainer(
        config, compute, make_optimizer(optimizer), mesh, domains=domains, accumulation=accumulation,
        kept=precision.find(optimizer.state),
    )  # fmt: skip
    where = sharding.sharding(mesh, ("batch", None))
    batch = {key: jax.ShapeDtypeStruct((rows, length), np.int32, sharding=where) for key in _KEYS}
    begin, limit = time.monotonic(), int(chips.usable(topology.chip))
    lowered = trainer.train_step.lower(trainer.abstract, batch, jax.ShapeDtypeStruct((), np.float32))  # type: ignore[attr-defined]
    try:
        program = lowered.compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "memory" not in str(error):
            raise
        return Compiled(False, 0, _needed(str(error)), limit, {}, time.monotonic() - begin, _first_line(str(error)))
    memory = program.memory_analysis()
    arguments = memory.argument_size_in_bytes
    rest = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    sent = collectives.bytes_sent(program.as_text())
    return Compiled(arguments + rest <= limit, arguments, rest, limit, sent, time.monotonic() - begin)


def _needed(message: str) -> int:
    found = _TOO_LARGE.search(message)
    return int(float(found[1]) * (2**30 if found[2] == "G" else 2**20)) if found else 0


def _first_line(message: str) -> str:
    return next((line.strip() for line in message.splitlines() if "memory" in line), message.splitlines()[0])[:200]
