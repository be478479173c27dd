"""Which parameters are trained. The others are frozen: no gradient, no optimizer state, no place in a checkpoint."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.models import quantized, table
from sftmix_jax.models.architecture import Adapted, Architecture
from sftmix_jax.models.decoder import Params
from sftmix_jax.models.quantized import Quantized

Path: TypeAlias = tuple[str, ...]
Layers: TypeAlias = tuple[int, int]  # the first, and the one behind the last
_RANGE = re.compile(r"layers\.(\d+)-(\d+)")


@dataclasses.dataclass(frozen=True)
class Trainable:
    """The parameters that are trained: each whole, or in some of the layers."""

    chosen: Mapping[Path, Layers | None] | None = None  # None: all parameters; of one, None: whole

    def split(self, params: Params) -> tuple[Params, Params | None]:
        """Parameters, or their abstract arrays → the trained ones, and the frozen ones (None if there are none)."""
        if self.chosen is None:
            return params, None
        trained, frozen = dict[Path, Any](), dict[Path, Any]()
        for path, leaf in _leaves(params):
            if path not in self.chosen:
                frozen[path] = leaf
            elif (layers := self.chosen[path]) is None:
                trained[path] = leaf
            else:
                begin, end = layers
                trained[path] = _cut(leaf, [(begin, end)])
                frozen[path] = _cut(leaf, [(0, begin), (end, leaf.shape[0])])
        return _tree(trained), _tree(frozen)

    def joined(self, trained: Params, frozen: Params | None) -> Params:
        """What `split` has split. A parameter that is trained in some layers is copied, in the wider dtype."""
        if self.chosen is None or frozen is None:
            return trained
        whole = dict(_leaves(frozen))
        for path, leaf in _leaves(trained):
            layers = self.chosen[path]
            if layers is not None:
                rest = whole[path]
                if isinstance(rest, Quantized):
                    rest = quantized.dequantized(rest)
                leaf = jnp.concatenate([rest[: layers[0]], leaf, rest[layers[0] :]])
            whole[path] = leaf
        return _tree(whole)

    def parts(self, path: Path) -> set[bool]:
        """What there is of a parameter: a trained part (True), a frozen one (False), or both."""
        if self.chosen is None:
            return {True}
        return {False} if path not in self.chosen else {True} if self.chosen[path] is None else {True, False}


EVERYTHING = Trainable()


def find(architecture: Architecture, names: Sequence[str]) -> Trainable:
    """The adapters of an architecture and the parameters of these names; all where there are neither.

    A name is `embed`, `norm`, `head`, `layers`, `layers.NAME` of a parameter in the layers, or `layers.FIRST-LAST`.
    Raises UserError.
    """
    params = table.parameters(architecture)
    adapters = {name for param in params for name in table.adapter_names(param.name)}
    chosen: dict[Path, Layers | None] = {param.path: None for param in params if param.name in adapters}
    if not names and not isinstance(architecture, Adapted):
        return EVERYTHING
    weights = [param for param in params if param.path not in chosen]
    known = {".".join(param.path): param.path for param in weights}
    for name in names:
        if name in known:
            chosen[known[name]] = None
        elif name == "layers":
            chosen |= {param.path: None for param in weights if param.in_layer}
        elif found := _RANGE.fullmatch(name):
            layers = int(found[1]), int(found[2]) + 1
            if not layers[0] < layers[1] <= architecture.num_layers:
                last = architecture.num_layers - 1
                raise UserError(f"config.model.trainable: '{name}'; the layers of this model are layers.0-{last}")
            some = None if layers == (0, architecture.num_layers) else layers
            if any(chosen.get(param.path) not in (None, some) for param in weights if param.in_layer):
                raise UserError(f"config.model.trainable: '{name}' is a second range of layers; name one range alone")
            chosen = {param.path: some for param in weights if param.in_layer} | chosen
        else:
            every = [*known, "layers"]
            if name == "head" and architecture.tied:
                raise UserError("config.model.trainable: the head of this model is its embedding; name embed")
            raise UserError(
                f"config.model.trainable: this model has no parameters '{name}'; {did_you_mean(name, every)} or "
                "layers.FIRST-LAST"
            )
    return Trainable(chosen)


def _leaves(params: Params) -> Iterator[tuple[Path, Any]]:
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=quantized.is_quantized):
        yield tuple(key.key for key in keys), leaf


def _tree(leaves: Mapping[Path, Any]) -> Params:
    params: Params = {}
    for path, leaf in leaves.items():
        node = params
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return params


def _cut(leaf: Any, layers: Sequence[Layers]) -> Any:
    """Some layers of a stacked parameter, or of its abstract array."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        count = sum(end - begin for begin, end in layers)
        return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype, sharding=leaf.sharding)
    return jnp.concatenate([leaf[begin:end] for begin, end in layers])
