"""Low-rank adapters beside frozen weights: what a config says of them, and how they are merged into the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

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

    `params` have A and B of each target among their layers. Each weight gets the dtype that it has in `like`; one that
    has it already is overwritten, so that a model is merged where there is no room for two.
    """
    layers = dict(params["layers"])
    for name in lora.targets:
        a, b = (layers.pop(adapter) for adapter in table.adapter_names(name))
        dtype = like["layers"][name].dtype
        add = _add_in_place if layers[name].dtype == dtype else _add
        layers[name] = add(layers[name], a, b, lora.scale, dtype)
    return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), {**params, "layers": layers}, like)


def _added(weight: Array, a: Array, b: Array, scale: float, dtype: np.dtype) -> Array:
    """W [L, …] and A [L, …, r] B [L, r, …]; layer by layer, as a product of all layers is a float32 weight."""
    left = a.astype(jnp.float32).reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])
    right = b.astype(jnp.float32).reshape(*b.shape[:2], math.prod(b.shape[2:]))
    in_place = weight.dtype == dtype

    def add(i: Array, found: Array) -> Array:
        product = jnp.matmul(left[i], right[i], precision="highest").reshape(weight.shape[1:])
        own = (found if in_place else weight)[i].astype(jnp.float32)
        return found.at[i].set((own + scale * product).astype(dtype))

    return jax.lax.fori_loop(0, weight.shape[0], add, weight if in_place else jnp.zeros(weight.shape, dtype))


_add = jax.jit(_added, static_argnames="dtype")
_add_in_place = jax.jit(_added, static_argnames="dtype", donate_argnames="weight")
