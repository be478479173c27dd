"""How Hugging Face checkpoints hold the parameters of the table: which tensor, which of its rows, in which order.

Linear weights are [outputs, inputs] there, heads and head size flattened. Parameters that share a tensor lie in it one
after the other along its rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sftmix_jax.models.table import Param
from sftmix_jax.models.tensors import Index


class Place(NamedTuple):
    """Where a parameter lies: from row `first` on in a tensor of this shape."""

    param: Param
    first: int
    stored_shape: tuple[int, ...]


def stored(params: Iterable[Param]) -> dict[str, list[Param]]:
    """Each tensor, by name ({} for the layer), with the parameters that it holds in order."""
    found: dict[str, list[Param]] = {}
    for param in params:
        found.setdefault(param.stored, []).append(param)
    return found


def places(params: Iterable[Param]) -> list[Place]:
    """The place of each parameter."""
    found = []
    for parts in stored(params).values():
        shape, first = stored_shape(parts), 0
        for param in parts:
            found.append(Place(param, first, shape))
            first += _rows(param)
    return found


def stored_shape(parts: Sequence[Param]) -> tuple[int, ...]:
    """The shape of the tensor that holds these parameters."""
    param, rows = parts[0], sum(map(_rows, parts))
    if param.inputs:
        return rows, math.prod(param.shape[: param.inputs])
    return (rows, *param.shape[1:])


def to_theirs(parts: Sequence[Param], ours: Sequence[np.ndarray]) -> np.ndarray:
    """One layer's share of each parameter → their tensor."""
    tensors = [_flat(param, own).T if param.inputs else own for param, own in zip(parts, ours, strict=True)]
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


def their_index(place: Place, index: Index) -> Index:
    """Which part of their tensor holds a part of ours; parts of a head are read with the whole head."""
    param = place.param
    whole = [slice(*cut.indices(size)[:2]) for cut, size in zip(index, param.shape, strict=True)]
    if not param.inputs:
        return _moved(whole[0], place.first), *whole[1:]
    at = param.inputs
    return _moved(_flat_slice(whole[at:], param.shape[at:]), place.first), _flat_slice(whole[:at], param.shape[:at])


def to_ours(place: Place, theirs: np.ndarray, index: Index) -> np.ndarray:
    """What `their_index` gave → that part of ours."""
    param = place.param
    if not param.inputs:
        return theirs
    at = param.inputs
    shape = (-1, *param.shape[1:at], theirs.shape[0] // math.prod(param.shape[at + 1 :]), *param.shape[at + 1 :])
    # the first axis of each side is cut already
    rest = tuple(slice(None) if axis in (0, at) else cut for axis, cut in enumerate(index))
    return theirs.T.reshape(shape)[rest]


def _rows(param: Param) -> int:
    """Rows that a parameter takes of its tensor."""
    return math.prod(param.shape[param.inputs :]) if param.inputs else param.shape[0]


def _flat(param: Param, ours: np.ndarray) -> np.ndarray:
    return ours.reshape(math.prod(param.shape[: param.inputs]), -1)


def _flat_slice(cuts: Sequence[slice], shape: Sequence[int]) -> slice:
    """A cut of the first of several axes that are flattened, with the others whole."""
    size = math.prod(shape[1:])
    return slice(cuts[0].start * size, cuts[0].stop * size)


def _moved(cut: slice, by: int) -> slice:
    return slice(cut.start + by, cut.stop + by)
