"""Linear weights of a layer in 8 or 4 bits, as frozen weights can be kept beside adapters (QLoRA).

int8: integers with one float32 scale per output. nf4: 4-bit NormalFloat with one float32 scale per 64 inputs of an
output (Dettmers et al., 2023, arXiv:2305.14314, section 3, without double quantization). Both are qwix'.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import KeyPath

from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import table

FORMATS = ("int8", "nf4")
READ_IN = "bfloat16"  # what is quantised is read in this dtype, and what is not quantised is kept in it
_BLOCK = 64  # inputs that share a scale in nf4; fewer where 64 does not divide them


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight in a format: values [L, *inputs, *outputs], and scales with as many axes, each of which divides it."""

    values: Array
    scales: Array
    format: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


jax.tree_util.register_dataclass(Quantized, data_fields=["values", "scales"], meta_fields=["format"])


def is_quantized(x: object) -> bool:
    return isinstance(x, Quantized)


def check(dtype: str) -> None:
    """Raises UserError if frozen weights cannot be kept in this dtype or format."""
    if dtype in FORMATS and importlib.util.find_spec("qwix") is None:
        raise UserError(f"config.model.frozen_dtype={dtype} needs qwix: pip install 'sftmix-jax[qlora]'")


@partial(jax.jit, static_argnames=("format", "inputs"))
def quantized(weight: Array, format: str, inputs: int) -> Quantized:
    """A weight [L, *inputs, *outputs] of so many input axes in a format, layer by layer: nf4 compares 16 distances."""
    import qwix

    def one(layer: Array) -> tuple[Array, Array]:
        rest = tuple(range(inputs, layer.ndim))
        tiles = {}
        if format == "nf4":
            rest = (*range(inputs - 1), *rest)
            tiles = {inputs - 1: _block(layer.shape[inputs - 1])}
        found = qwix.quantize(layer.astype(jnp.float32), format, channelwise_axes=rest, tiled_axes=tiles)
        return found.qvalue, found.scale

    values, scales = jax.lax.map(one, weight)
    return Quantized(values, scales, format)


def _block(size: int) -> int:
    return next(block for block in range(min(_BLOCK, size), 0, -1) if size % block == 0)


def dequantized(weight: Quantized) -> Array:
    """The float32 weight that a quantised one stands for."""
    import qwix

    return qwix.dequantize(qwix.QArray(weight.values, weight.scales, qtype=weight.format))


@jax.checkpoint
def product(rows: Array, weight: Quantized) -> Array:
    """rows [R, I] times one layer's weight [*inputs, *outputs] → [R, O].

    The backward pass dequantises again: kept, the weights of all layers would be as large as if they had never been
    quantised.
    """
    return rows @ dequantized(weight).astype(rows.dtype).reshape(rows.shape[1], -1)


def abstract(frozen: Any, dtype: str) -> Any:
    """Shapes, dtypes and shardings of frozen parameters as they are kept. Raises UserError for a mesh that splits them.

    `dtype`: of all of them, or the format of a layer's linear weights; the others are then kept in bfloat16.
    """

    def one(path: KeyPath, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct | Quantized:
        where = x.sharding
        if dtype not in FORMATS or not (inputs := _inputs(path)):
            return jax.ShapeDtypeStruct(x.shape, READ_IN if dtype in FORMATS else dtype, sharding=where)
        if isinstance(where, NamedSharding):
            if where.mesh.shape["fsdp"] * where.mesh.shape["tensor"] > 1 or where.mesh.is_multi_process:
                raise UserError(
                    f"config.model.frozen_dtype={dtype}: quantised weights lie whole on each device of one process; "
                    "set config.mesh.data=-1, config.mesh.fsdp=1 and config.mesh.tensor=1, or another frozen_dtype"
                )
            where = NamedSharding(where.mesh, PartitionSpec())
        found = jax.eval_shape(partial(quantized, format=dtype, inputs=inputs), x)
        return jax.tree.map(lambda part: jax.ShapeDtypeStruct(part.shape, part.dtype, sharding=where), found)

    return jax.tree_util.tree_map_with_path(one, frozen)


def put(x: Array, wanted: Quantized, path: KeyPath) -> Quantized:
    """A weight, quantised where it lies, then moved to where `wanted` is."""
    found = quantized(x, wanted.format, _inputs(path))
    return jax.tree.map(lambda part, like: jax.device_put(part, like.sharding), found, wanted)


def rounded(frozen: Any, dtype: str) -> Any:
    """Frozen parameters as a model computes with them when they are kept in this dtype: quantised ones in float32."""

    def one(path: KeyPath, x: Array) -> Array:
        inputs = _inputs(path) if dtype in FORMATS else 0
        return dequantized(quantized(x, dtype, inputs)) if inputs else x

    return jax.tree_util.tree_map_with_path(one, frozen)


def _inputs(path: KeyPath) -> int:
    """Input axes of a layer's linear weight; 0 for what is not quantised."""
    keys = [key.key for key in path]
    return table.LINEAR.get(keys[-1], 0) if keys[0] == "layers" else 0
