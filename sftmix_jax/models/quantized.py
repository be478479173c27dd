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
from jax.sharding import Mesh, NamedSharding, PartitionSpec
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


def bytes_per_weight(dtype: str) -> float:
    """Of a frozen linear weight in a dtype or format, nf4's scales among them."""
    return {"int8": 1.0, "nf4": 0.5 + 4 / _BLOCK}.get(dtype) or float(jnp.dtype(dtype).itemsize)


def check(dtype: str) -> None:
    """Raises UserError if a package is missing for frozen weights in this dtype or format."""
    if dtype in FORMATS and importlib.util.find_spec("qwix") is None:
        raise UserError(f"frozen weights in {dtype} need qwix: pip install 'sftmix-jax[qlora]'")


def check_mesh(dtype: str, mesh: Mesh) -> None:
    """Raises UserError for a mesh over which frozen weights cannot be kept in this dtype or format."""
    if dtype not in FORMATS:
        return
    if dtype == "nf4" and mesh.devices.flat[0].platform == "tpu":
        raise UserError(
            "config.model.frozen_dtype=nf4: a TPU takes more than 100 bytes per weight to look its values up; use int8"
        )
    said = f"config.model.frozen_dtype={dtype}: quantised weights lie whole on each device of one process; "
    if mesh.is_multi_process:
        raise UserError(f"{said}these devices belong to several. Use one process, or frozen_dtype=bfloat16")
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        raise UserError(
            f"{said}set config.mesh.data=-1, config.mesh.fsdp=1 and config.mesh.tensor=1, or frozen_dtype=bfloat16"
        )


@partial(jax.jit, static_argnames=("format", "inputs"))
def quantized(weight: Array, format: str, inputs: int) -> Quantized:
    """A weight [L, *inputs, *outputs] of so many input axes in a format, layer by layer: nf4 compares 16 distances."""
    return jax.lax.map(lambda layer: _layer(layer, format, inputs), weight)


def _layer(weight: Array, format: str, inputs: int) -> Quantized:
    import qwix

    last = inputs - 1
    outputs = tuple(range(inputs, weight.ndim))
    each, tiles = (outputs, {}) if format == "int8" else ((*range(last), *outputs), {last: _block(weight.shape[last])})
    # However it was read, a frozen weight has the precision of READ_IN.
    weight = weight.astype(READ_IN).astype(jnp.float32)
    found = qwix.quantize(weight, format, channelwise_axes=each, tiled_axes=tiles)
    return Quantized(found.qvalue, found.scale, format)


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
    """Shapes, dtypes and shardings of frozen parameters as they are kept.

    `dtype`: of all of them, or the format of a layer's linear weights; the others are then kept in bfloat16.
    """

    def one(path: KeyPath, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct | Quantized:
        where = x.sharding
        if dtype not in FORMATS or not (inputs := _inputs(path)):
            return jax.ShapeDtypeStruct(x.shape, READ_IN if dtype in FORMATS else dtype, sharding=where)
        if isinstance(where, NamedSharding):
            where = NamedSharding(where.mesh, PartitionSpec())
        found = jax.eval_shape(partial(quantized, format=dtype, inputs=inputs), x)
        return jax.tree.map(lambda part: jax.ShapeDtypeStruct(part.shape, part.dtype, sharding=where), found)

    return jax.tree_util.tree_map_with_path(one, frozen)


def put(x: Array, wanted: Quantized, path: KeyPath) -> Quantized:
    """A weight, quantised where it lies, then moved to where `wanted` is."""
    found = quantized(x, wanted.format, _inputs(path))
    return jax.tree.map(lambda part, like: jax.device_put(part, like.sharding), found, wanted)


def rounded(frozen: Any, kept_in: str, dtype: str) -> Any:
    """Frozen parameters that stand for those that are kept in a dtype or format; what is quantised comes in `dtype`.

    A weight that has this dtype already is overwritten.
    """

    def one(path: KeyPath, x: Array) -> Array:
        inputs = _inputs(path) if kept_in in FORMATS else 0
        if not inputs:
            return x
        return (_round_in_place if x.dtype == dtype else _round)(x, kept_in, inputs, dtype)

    return jax.tree_util.tree_map_with_path(one, frozen)


def _rounded(weight: Array, format: str, inputs: int, dtype: str) -> Array:
    """Layer by layer, so that no float32 weight of all layers is made for a dtype that is narrower."""
    in_place = weight.dtype == dtype

    def one(i: Array, found: Array) -> Array:
        layer = _layer((found if in_place else weight)[i], format, inputs)
        return found.at[i].set(dequantized(layer).astype(dtype))

    return jax.lax.fori_loop(0, weight.shape[0], one, weight if in_place else jnp.zeros(weight.shape, dtype))


_round = jax.jit(_rounded, static_argnames=("format", "inputs", "dtype"))
_round_in_place = jax.jit(_rounded, static_argnames=("format", "inputs", "dtype"), donate_argnames="weight")


def _inputs(path: KeyPath) -> int:
    """Input axes of a layer's linear weight; 0 for what is not quantised."""
    keys = [key.key for key in path]
    return table.LINEAR.get(keys[-1], 0) if keys[0] == "layers" else 0
