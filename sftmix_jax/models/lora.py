"""Low-rank adapters beside frozen weights: what a config says of them, and how they are merged into the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sftmix_jax.machine.ranges import Choice, Integer, Items, Number, setting
from sftmix_jax.models import table
from sftmix_jax.models.architecture import Lora
from sftmix_jax.models.decoder import Params


@dataclasses.dataclass
class LoraConfig:
    """Low-rank adapters (LoRA): the base's weights are frozen, and two small matrices beside each target are trained.

    As in PEFT, a product x W becomes x W + alpha / rank · (x A) B. There is no dropout.
    """

    rank: int = setting(
        0, Integer(at_least=0, at_most=65_536), "columns of A and rows of B; 0: no adapters, every parameter is trained"
    )
    alpha: float = setting(
        16.0, Number(at_least=1e-6, at_most=1e6), "the adapters' product is multiplied with alpha / rank"
    )
    targets: tuple[str, ...] = setting(
        tuple(table.LINEAR), Items(Choice(tuple(table.LINEAR)), at_least=1), "the weights of a layer with an adapter"
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if len(set(self.targets)) < len(self.targets):
            yield f"{where}.targets: {self.targets}; must name each weight once"

    @property
    def adapters(self) -> Lora | None:
        """What an architecture is adapted with; None for no adapters."""
        named = tuple(name for name in table.LINEAR if name in self.targets)  # their order changes nothing
        return Lora(self.rank, float(self.alpha), named) if self.rank else None


def merged(params: Params, lora: Lora, like: Params) -> Params:
    """Weights with their adapters added: W + alpha / rank · A B, computed in float32.

    `params` have A and B of each target among their layers. Each weight gets the dtype that it has in `like`.
    """
    layers = dict(params["layers"])
    for name in lora.targets:
        a, b = (layers.pop(adapter) for adapter in table.adapter_names(name))
        layers[name] = _added(layers[name], a, b, lora.scale, like["layers"][name].dtype)
    return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), {**params, "layers": layers}, like)


@partial(jax.jit, static_argnames="dtype")
def _added(weight: Array, a: Array, b: Array, scale: float, dtype: np.dtype) -> Array:
    """W [L, …] and A [L, …, r] B [L, r, …]."""
    left = a.astype(jnp.float32).reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])
    right = b.astype(jnp.float32).reshape(*b.shape[:2], math.prod(b.shape[2:]))
    product = jnp.matmul(left, right, precision="highest").reshape(weight.shape)
    return (weight.astype(jnp.float32) + scale * product).astype(dtype)
