"""What a stage trains of a model: every parameter, some of them, or adapters beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.tree_util import KeyPath

from sftmix_jax.experiment.config import ModelConfig
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder, lora, quantized, table
from sftmix_jax.models.architecture import Architecture, Lora, adapted
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.training import trainable
from sftmix_jax.training.trainable import Trainable


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The trained parameters of a model, and its frozen ones. Weights are parameters without adapters."""

    base: Architecture
    lora: Lora | None = None
    names: tuple[str, ...] = ()  # of weights that are trained; see `training.trainable.find`
    frozen_dtype: str = "float32"

    @cached_property
    def architecture(self) -> Architecture:
        """With the adapters."""
        return adapted(self.base, self.lora)

    @cached_property
    def trainable(self) -> Trainable:
        """Raises UserError for a name that is no parameter."""
        return trainable.find(self.architecture, self.names)

    @property
    def weights_dtype(self) -> str:
        """The dtype that frozen weights are read in."""
        return quantized.READ_IN if self.frozen_dtype in quantized.FORMATS else self.frozen_dtype

    @property
    def is_full(self) -> bool:
        """Whether every parameter is trained."""
        return self.lora is None and not self.names

    def num_trained(self, *, multiplied: bool = False) -> int:
        """How many parameters are trained; `multiplied`: of the linear weights, the output projection among them."""
        if self.is_full:
            return table.matmul_params(self.base) if multiplied else table.num_params(self.base)
        chosen = self.trainable.chosen or {}
        total = 0
        for param in table.parameters(self.architecture):
            is_multiplied = param.inputs or (param.name == "embed" and self.base.tied)
            if param.path in chosen and (is_multiplied or not multiplied):
                begin, end = chosen[param.path] or (0, self.base.num_layers if param.in_layer else 1)
                total += (end - begin) * param.size
        return total

    @property
    def record(self) -> dict[str, Any]:
        """What it adds to a stage's identity."""
        if self.is_full:
            return {}
        return {"lora": self.lora, "trainable": self.names, "frozen_dtype": self.frozen_dtype}

    def abstract_weights(self, compute: Compute, mesh: Mesh, trained_dtype: str) -> Params:
        """Shapes, dtypes and shardings of the weights as a stage reads them: on the host if they are then quantised."""
        _, whole, axes = decoder.build(self.base, compute)
        whole = sharding.with_shardings(whole, sharding.param_shardings(mesh, whole, axes))
        if self.frozen_dtype in quantized.FORMATS:
            host = SingleDeviceSharding(sharding.host())
            whole = sharding.with_shardings(whole, jax.tree.map(lambda _: host, whole))
        chosen = self.trainable

        def one(path: Any, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            trained = {True: trained_dtype, False: self.weights_dtype}
            dtypes = {trained[some] for some in chosen.parts(tuple(key.key for key in path))}
            return jax.ShapeDtypeStruct(x.shape, jnp.result_type(*dtypes), sharding=x.sharding)

        return jax.tree_util.tree_map_with_path(one, whole)

    def fresh(self, compute: Compute, seed: int, abstract: Params) -> Params:
        """Fresh parameters in place of the abstract ones, which may be some of the model's, such as its adapters."""

        def draw() -> Params:
            every = decoder.init(self.architecture, compute, seed)
            return jax.tree_util.tree_map_with_path(lambda path, x: _at(every, path).astype(x.dtype), abstract)

        return jax.jit(draw, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))()

    def abstract_trained(self, abstract: Params) -> Params:
        """The trained parameters for abstract weights that lie somewhere; adapters lie whole on each device."""
        where = jax.tree.leaves(abstract)[0].sharding
        if isinstance(where, NamedSharding):
            where = NamedSharding(where.mesh, PartitionSpec())
        layers = dict(abstract["layers"])
        for param in table.parameters(self.base):
            for own in table.adapters(param, self.lora) if self.lora else ():
                shape = (self.base.num_layers, *own.shape)
                layers[own.name] = jax.ShapeDtypeStruct(shape, "float32", sharding=where)
        return self.trainable.split({**abstract, "layers": layers})[0]

    def whole(self, trained: Params, weights: Params, abstract: Params) -> Params:
        """A model's weights after training, with the dtypes and shardings of `abstract`.

        `weights` are those it started from, and may be overwritten; adapters are merged in float32.
        """
        dtype = jax.tree.leaves(abstract["layers"])[0].dtype.name
        frozen = quantized.rounded(self.trainable.split(weights)[1], self.frozen_dtype, dtype)
        every = self.trainable.joined(trained, frozen)
        found = lora.merged(every, self.lora, abstract) if self.lora else every
        return jax.tree.map(placed, found, abstract)


def placed(x: jax.Array, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """In the dtype and sharding of `wanted`; a program moves what is split over several processes."""
    if x.dtype == wanted.dtype and x.sharding.is_equivalent_to(wanted.sharding, x.ndim):
        return x
    if x.sharding.device_set != wanted.sharding.device_set and x.is_fully_addressable:
        return jax.device_put(x.astype(wanted.dtype), wanted.sharding)
    return jax.jit(lambda x: x.astype(wanted.dtype), out_shardings=wanted.sharding)(x)


def kept(frozen: Params | None, abstract: Params | None) -> Params:
    """Frozen parameters as a stage keeps them, with the dtypes, formats and shardings of `abstract`."""

    def one(path: KeyPath, wanted: Any, x: jax.Array) -> Any:
        return quantized.put(x, wanted, path) if quantized.is_quantized(wanted) else placed(x, wanted)

    return jax.tree_util.tree_map_with_path(one, abstract, frozen, is_leaf=quantized.is_quantized)


def of_config(model: ModelConfig, base: Architecture) -> Tuning:
    """What an experiment trains of its base. Raises UserError for a name that is no parameter."""
    adapters, names = model.lora.adapters, tuple(sorted(set(model.trainable)))  # their order changes nothing
    trainable.find(adapted(base, adapters), names)  # refuses a name that is no parameter
    if model.trains_all:
        if model.frozen_dtype in quantized.FORMATS:
            raise UserError(
                f"config.model.frozen_dtype={model.frozen_dtype}: every parameter is trained, and none is kept so; "
                "set config.model.lora.rank"
            )
        return Tuning(base)
    quantized.check(model.frozen_dtype)
    found = Tuning(base, adapters, names, model.frozen_dtype)
    linear = [param.path for param in table.parameters(base) if param.in_layer and param.inputs]
    if model.frozen_dtype in quantized.FORMATS and not any(False in found.trainable.parts(path) for path in linear):
        raise UserError(
            f"config.model.frozen_dtype={model.frozen_dtype}: no linear weight of a layer is frozen, and none is kept "
            "so; set it to bfloat16"
        )
    return found


def of_record(record: Mapping[str, Any], base: Architecture) -> Tuning:
    """What the stage of a stage.json trained. Raises UserError where a package for its frozen weights is missing."""
    if "frozen_dtype" not in record:
        return Tuning(base)
    quantized.check(record["frozen_dtype"])
    held = record["lora"]
    adapters = held and Lora(held["rank"], held["alpha"], tuple(held["targets"]))
    return Tuning(base, adapters, tuple(record["trainable"]), record["frozen_dtype"])


def _at(params: Params, path: Any) -> Any:
    for key in path:
        params = params[key.key]
    return params
