"""Compile what training and sampling run for machines that are not here; nothing is allocated.

For GPUs devices of this machine's CPU stand in: state and collectives are those of the compiled step, all other memory
is counted (`buffers`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from sftmix_jax.data.loader import DTYPES
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.models import cache as caches
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.attention import Cache
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.planning import buffers, chips, collectives
from sftmix_jax.planning.chips import Chip
from sftmix_jax.sampling import decode, sampler
from sftmix_jax.sampling.decode import Prompts, Setup, Slots, Until
from sftmix_jax.sampling.methods import Method
from sftmix_jax.training import precision
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import Trainer, make_trainer

# Shapes that are offered where a name is not understood.
TOPOLOGIES = (
    "v4:2x2x2",
    "v4:2x2x4",
    "v5e:2x4",
    "v5e:4x4",
    "v5e:4x8",
    "v5e:8x8",
    "v5e:8x16",
    "v5e:16x16",
    "v5p:2x2x1",
    "v5p:2x2x2",
    "v5p:2x2x4",
    "v5p:2x4x4",
    "v5p:4x4x4",
    "v5p:4x4x8",
    "v6e:2x4",
    "v6e:4x4",
    "v6e:4x8",
    "v6e:8x8",
    "v6e:8x16",
    "v6e:16x16",
    "tpu7x:2x2x1",
    "tpu7x:2x2x2",
    "tpu7x:2x2x4",
    "tpu7x:4x4x4",
    "rtx4090:1",
    "l4:1",
    "a10g:1",
    "l40s:1",
    "a100-40gb:8",
    "a100:8",
    "h100:1",
    "h100:8",
    "h200:1",
    "h200:8",
    "b200:8",
)
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
_MOST_GPUS = 64
_TOO_LARGE = re.compile(r"(Used |temporaries \()([\d.]+)([GM])(?: of [\d.]+[GM] hbm|\))")


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

    @property
    def limit(self) -> int:
        """Bytes that a program may take of a device."""
        return int(chips.usable(self.chip))

    @property
    def is_gpu(self) -> bool:
        return self.chip.backend == "gpu"

    def __reduce__(self) -> tuple[Any, ...]:
        """Described again in another process: devices that are not here cannot be sent."""
        return find_topology, (self.name, self.slices)


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
    parameters: int = 0  # of `arguments`, in training
    complaints: tuple[str, ...] = ()  # of arrays that are gathered on their way from one sharding to another

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries


def find_topology(name: str, slices: int = 1) -> Topology:
    """`v5p:2x2x4` → its devices, as the TPU compiler knows them; `h100:8` → as many CPU devices. Raises UserError."""
    kind, _, shape = name.partition(":")
    if kind in chips.CHIPS and chips.CHIPS[kind].backend == "gpu" and re.fullmatch(r"[1-9]\d*", shape):
        if slices > 1:
            raise UserError(
                f"topology '{name}': --num_slices is for TPUs; name all GPUs at once ({kind}:{int(shape) * slices})"
            )
        return Topology(name, kind, chips.CHIPS[kind], _cpu_devices(int(shape)), 1)
    if kind not in chips.CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(f"topology '{name}': {did_you_mean(name, TOPOLOGIES)}")
    # The compiler asks the machine for its neighbours; here there are none. Nor may jax look for chips of its own.
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # what is compiled for other machines is not read back
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a v4 chip are one device
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        if "libtpu" in str(error) or isinstance(error, ImportError):
            raise UserError("the TPU compiler is not installed: pip install 'sftmix-jax[plan]'") from None
        first = str(error).splitlines()[0]
        raise UserError(f"topology '{name}': {did_you_mean(name, TOPOLOGIES)} (the compiler says: {first})") from None
    return Topology(name, kind, chips.find_chip(kind), tuple(described.devices), slices)


def _cpu_devices(count: int) -> tuple[jax.Device, ...]:
    """Devices that stand for GPUs: no GPU compiler runs without a GPU, but XLA splits and counts the same program."""
    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # CPU devices are there already, and stay as many as they are
        jax.config.update("jax_num_cpu_devices", max(count, _MOST_GPUS))
    if len(jax.devices()) < count:
        raise UserError(f"{count} GPUs: up to {len(jax.devices())} can be planned for")
    return tuple(jax.devices()[:count])


def compile_step(
    how: Tuning,
    compute: Compute,
    optimizer: OptimizerConfig,
    layout: MeshConfig,
    topology: Topology,
    *,
    rows: int,
    length: int,
    domains: int,
    grad_accum_steps: int,
) -> Compiled:
    """The very step that training jits, for a batch of `rows` rows."""
    mesh = sharding.make_mesh(layout, topology.devices)
    if topology.is_gpu:  # no kernel for GPUs runs on the devices that stand in
        compute = dataclasses.replace(compute, attention="plain")
    trainer = _trainer(how, compute, optimizer, mesh, domains, grad_accum_steps)
    rate = jax.ShapeDtypeStruct((), np.float32)
    found = _compile(topology, trainer.train_step, trainer.abstract, _batch(mesh, rows, length), rate)
    found = dataclasses.replace(found, parameters=_bytes(trainer.abstract.params) + _bytes(trainer.abstract.frozen))
    if topology.is_gpu:
        kept = precision.find(optimizer.state)
        sizes = {"rows": rows, "length": length, "grad_accum_steps": grad_accum_steps}
        return _judged(topology, found, buffers.training(how, compute, kept, mesh.shape, **sizes))
    return found


def compile_evaluation(
    how: Tuning,
    compute: Compute,
    optimizer: OptimizerConfig,
    layout: MeshConfig,
    topology: Topology,
    *,
    rows: int,
    length: int,
    domains: int,
    grad_accum_steps: int,
) -> Compiled:
    """The step that measures validation loss, while the optimiser's state stays where it is."""
    mesh = sharding.make_mesh(layout, topology.devices)
    trainer = _trainer(how, compute, optimizer, mesh, domains, grad_accum_steps)
    resident = _bytes(trainer.abstract.opt_state)
    if topology.is_gpu:
        kept = precision.find(optimizer.state)
        held = resident + _bytes((trainer.abstract.params, trainer.abstract.frozen))
        sizes = {"rows": rows // grad_accum_steps, "length": length}
        return _counted(topology, held, buffers.validation(how, compute, kept, mesh.shape, **sizes))
    return _compile(topology, trainer.eval_step, trainer.abstract, _batch(mesh, rows, length), resident=resident)


# Tokens of a prompt and its answer, for models that hold more: the sampler's cache is as long as the longest request.
_ANSWERED = 4096


def compile_prefill(config: Architecture, compute: Compute, topology: Topology, *, slots: int) -> Compiled:
    """The sampler's reading of prompts, all slots taken by prompts of the full length."""
    setup, model, rows, size = _sampler(config, compute, topology, slots)
    ints = jax.ShapeDtypeStruct(rows.temperature.shape, np.int32)
    if topology.is_gpu:
        sizes = {"rows": ints.shape[0], "size": size, "cache": _bytes(model[-1])}
        return _counted(topology, _bytes(model), buffers.prefill(config, compute, setup.mesh.shape, **sizes))
    where = sharding.sharding(setup.mesh, ("batch", None))
    tokens = jax.ShapeDtypeStruct((*ints.shape, size), np.int32, sharding=where)
    prompts = Prompts(tokens, ints, ints, rows.temperature, rows.top_p, rows.key)
    return _compile(topology, decode.prefill, setup, *model, prompts)


def compile_decode(config: Architecture, compute: Compute, topology: Topology, *, slots: int) -> Compiled:
    """The sampler's steps, all slots near the full length: the model's, or 4,096 tokens.

    At full length they work in the cache itself; at the span before it a copy of that part lies beside it.
    """
    setup, model, rows, size = _sampler(config, compute, topology, slots)
    spans = [size, max((sampler.bucket(n) for n in range(1, size) if sampler.bucket(n) < size), default=size)]
    if topology.is_gpu:
        count, part = rows.token.shape[0], _bytes(model[-1]) * spans[1] // size
        return _counted(topology, _bytes(model), buffers.decode(config, setup.mesh.shape, rows=count, part=part))
    until = Until(jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((), np.int32))
    compiled = [
        _compile(topology, decode.decode, setup, *model, rows, until, span=span) for span in dict.fromkeys(spans)
    ]
    return max(compiled, key=lambda each: (not each.fits, each.total))


def _sampler(
    config: Architecture, compute: Compute, topology: Topology, slots: int
) -> tuple[Setup, tuple[Method, Params, Cache], Slots, int]:
    """The set-up of sampling, whose mesh does not depend on the training mesh; what both programs take behind it; the
    slots and their length."""
    mesh = sharding.make_mesh(MeshConfig(), topology.devices)
    compute = dataclasses.replace(compute, remat="none", attention="plain")
    size, slots = sampler.bucket(min(config.max_length, _ANSWERED)), sampler.whole_parts(mesh, slots)
    cache = jax.eval_shape(lambda: caches.empty(config, slots, size, compute.dtype, caches.has_places_first(mesh)))
    where = caches.placing(mesh, slots, config.num_kv_heads)
    cache = sharding.with_shardings(cache, jax.tree.map(lambda _: where, cache))
    setup = Setup(config, compute, mesh)
    params = sampler.abstract_params(setup)
    rows = jax.eval_shape(lambda: Slots.empty(slots))
    return setup, (Method.NUCLEUS, params, cache), rows, size


def _bytes(tree: Any) -> int:
    """Of the arrays of a tree, on one device."""
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
    shapes = [x.sharding.shard_shape(x.shape) if x.sharding else x.shape for x in arrays]
    return sum(math.ceil(math.prod(shape) * _bits(x.dtype) / 8) for x, shape in zip(arrays, shapes, strict=True))


def _bits(dtype: np.dtype) -> int:
    """Of a number; two of 4 bits share a byte in compiled programs."""
    return jnp.iinfo(dtype).bits if jnp.issubdtype(dtype, jnp.integer) else 8 * dtype.itemsize


def _trainer(
    how: Tuning, compute: Compute, optimizer: OptimizerConfig, mesh: Mesh, domains: int, grad_accum_steps: int
) -> Trainer:
    return make_trainer(
        how.architecture,
        compute,
        make_optimizer(optimizer),
        mesh,
        domains=domains,
        grad_accum_steps=grad_accum_steps,
        kept=precision.find(optimizer.state),
        trainable=how.trainable,
        frozen_dtype=how.frozen_dtype,
    )


def _batch(mesh: Mesh, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    where = sharding.sharding(mesh, ("batch", None))
    return {key: jax.ShapeDtypeStruct((rows, length), dtype, sharding=where) for key, dtype in DTYPES.items()}


def _compile(topology: Topology, function: Any, *arguments: Any, resident: int = 0, **static: Any) -> Compiled:
    """A jitted function for these abstract arguments; `resident`: bytes that lie on the device besides."""
    begin, limit = time.monotonic(), topology.limit
    lowered = function.lower(*arguments, **static)
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        taken, message = _bytes(arguments) + resident, str(error)
        rest = _needed(message, taken)
        return Compiled(False, taken, rest, limit, {}, time.monotonic() - begin, _first_line(message))
    memory = program.memory_analysis()
    taken = memory.argument_size_in_bytes + resident
    rest = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    sent = collectives.bytes_sent(program.as_text())
    return Compiled(taken + rest <= limit, taken, rest, limit, sent, time.monotonic() - begin)


def _counted(topology: Topology, held: int, named: dict[str, float]) -> Compiled:
    """A program that nothing here compiles, by what it holds and its named buffers."""
    return _judged(topology, Compiled(True, held, 0, topology.limit, {}, 0.0), named)


def _judged(topology: Topology, found: Compiled, named: dict[str, float]) -> Compiled:
    """What was compiled for CPU devices, with a GPU's buffers in the place of its temporaries."""
    rest = int(sum(named.values()))
    fits = found.arguments + rest <= topology.limit
    largest = sorted(named.items(), key=lambda item: -item[1])[:3]
    listed = ", ".join(f"{size / 2**30:.1f} of {name}" for name, size in largest)
    said = (
        ""
        if fits
        else (
            f"needs {(found.arguments + rest) / 2**30:.1f} GiB of {topology.limit / 2**30:.1f}: "
            f"{found.arguments / 2**30:.1f} of state, {listed}"
        )
    )
    return dataclasses.replace(found, fits=fits, temporaries=rest, message=said)


def _needed(message: str, taken: int) -> int:
    """Bytes besides the `taken` ones of arguments, as the compiler says; 0 where it does not."""
    found = _TOO_LARGE.search(message)
    if not found:
        return 0
    said = int(float(found[2]) * (2**30 if found[3] == "G" else 2**20))
    return max(said - taken, 0) if found[1].startswith("Used") else said


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines()]
    line = next((line for line in lines if "memory" in line), lines[0])
    return line.removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")[:200]
