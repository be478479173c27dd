"""Checkpoints in Hugging Face's layout: the parameter table, walked both ways."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_safetensors

from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.models import families, hf_config, layout
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.decoder import Params
from sftmix_jax.models.hf_config import Special
from sftmix_jax.models.layout import Place
from sftmix_jax.models.table import Param
from sftmix_jax.models.tensors import DERIVED, INDEX, Folder, Index

_SHARD_BYTES = 5 * 10**9


class Weights:
    """A model folder whose names and shapes are known to fit its config; its numbers are read part by part."""

    def __init__(self, folder: epath.Path):
        """Raises UserError for a missing, unused or misshapen tensor, by name; reads no numbers (but see `tied`)."""
        self.config = hf_config.read(folder)
        self._tensors = tensors = Folder(folder)
        self._places = {place.param.path: place for place in layout.places(families.parameters(self.config))}
        used = set()
        for place in self._places.values():
            for name in self._names(place.param):
                if name not in tensors.where:
                    raise UserError(f"{folder}: the tensor {name} is missing; {did_you_mean(name, tensors.where)}")
                found = tensors.shape(name)
                if found != place.stored_shape:
                    raise UserError(f"{folder}: {name} has shape {found}, config.json wants {place.stored_shape}")
                used.add(name)
        unused = {name for name in tensors.where if name not in used and not name.endswith(DERIVED)}
        if self.config.tied and "lm_head.weight" in unused:
            # some exporters store the tied matrix twice; another matrix would change the model
            embed = self._places["embed",].param.stored
            if not np.array_equal(tensors.read("lm_head.weight"), tensors.read(embed)):
                raise UserError(f"{folder}: config.json ties the embeddings, but lm_head.weight differs from them")
            unused.remove("lm_head.weight")
        if unused:
            listed = ", ".join(sorted(unused)[:5])
            raise UserError(
                f"{folder}: {len(unused)} tensors have no place in a {self.config.family} model as config.json states "
                f"it: {listed}"
            )

    def _names(self, param: Param) -> list[str]:
        return [param.stored.format(i) for i in range(self.config.num_layers if param.in_layer else 1)]

    def shape(self, path: tuple[str, ...]) -> tuple[int, ...]:
        """Of the whole parameter, with its layers."""
        param = self._places[path].param
        return (self.config.num_layers, *param.shape) if param.in_layer else param.shape

    def read(self, path: tuple[str, ...], index: Index) -> np.ndarray:
        """A part of one of our parameters, float32; nothing else of it is read."""
        place = self._places[path]
        names = self._names(place.param)
        if not place.param.in_layer:
            return self._part(names[0], place, index)
        names = names[index[0]]
        first = self._part(names[0], place, index[1:])
        out = np.empty((len(names), *first.shape), np.float32)
        for i, name in enumerate(names):
            out[i] = first if i == 0 else self._part(name, place, index[1:])
        return out

    def _part(self, name: str, place: Place, index: Index) -> np.ndarray:
        theirs = self._tensors.read(name, layout.their_index(place, index))
        return np.ascontiguousarray(layout.to_ours(place, theirs, index))

    @property
    def files(self) -> list[epath.Path]:
        """The weight files that are read."""
        return self._tensors.files

    @property
    def note(self) -> str:
        """Which weight files of the folder are left out, and why; empty where there is no choice."""
        return self._tensors.note

    def paths(self) -> list[tuple[str, ...]]:
        """Every parameter of the model."""
        return list(self._places)

    def fingerprint(self) -> str:
        """A hash of what decides the model: its architecture and the content of each weight file that is read.

        Of many processes each reads some of the files. All must call it.
        """
        digest = hashlib.sha256(repr(self.config).encode())
        for content in processes.divided(_sha256, self.files):
            digest.update(bytes.fromhex(content))
        return digest.hexdigest()[:16]


def _sha256(file: epath.Path) -> str:
    content = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 24):
            content.update(chunk)
    return content.hexdigest()


def load(folder: epath.Path) -> tuple[Architecture, Params]:
    """Read a model folder: float32 numpy parameters, layers stacked. Raises UserError, see Weights."""
    weights = Weights(folder)
    whole = {path: weights.read(path, tuple(map(slice, weights.shape(path)))) for path in weights.paths()}
    return weights.config, _nested(whole)


def stream(folder: epath.Path, abstract: Params) -> Params:
    """Read a model folder onto the devices, with the dtypes and shardings of `abstract`.

    A process reads only what its devices hold, and holds at most one layer of one parameter besides. Raises UserError.
    """
    weights = Weights(folder)
    return _nested({path: _streamed(weights, path, _at(abstract, path)) for path in weights.paths()})


_AT_ONCE = 1 << 28  # bytes of a parameter on this process's devices, up to which it is read in one go


def _streamed(weights: Weights, path: tuple[str, ...], abstract: jax.ShapeDtypeStruct) -> jax.Array:
    where, dtype = abstract.sharding, abstract.dtype
    assert isinstance(where, NamedSharding | SingleDeviceSharding)

    def part(index: Index | None) -> np.ndarray:
        assert index is not None
        return weights.read(path, index).astype(dtype)

    local = math.prod(where.shard_shape(abstract.shape)) * dtype.itemsize * len(where.addressable_devices)
    if path[0] != "layers" or local <= _AT_ONCE:
        return jax.make_array_from_callback(abstract.shape, where, part)
    # Layer by layer into the array on the devices: else a whole parameter would be on the host and on them at once.
    of_layer = NamedSharding(where.mesh, PartitionSpec(*where.spec[1:])) if isinstance(where, NamedSharding) else where
    whole = jax.jit(lambda: jnp.zeros(abstract.shape, dtype), out_shardings=where)()
    # `at[i].set` would copy the whole, in twice its width where it is bfloat16
    put = jax.jit(partial(jax.lax.dynamic_update_index_in_dim, axis=0), donate_argnums=0, out_shardings=where)
    for i in range(abstract.shape[0]):

        def of(index: Index | None, layer: int = i) -> np.ndarray:
            return part((slice(layer, layer + 1), *(index or ())))[0]

        whole = put(whole, jax.make_array_from_callback(abstract.shape[1:], of_layer, of), i)
    return jax.block_until_ready(whole)


def _nested(flat: Mapping[tuple[str, ...], Any]) -> Params:
    params: Params = {"layers": {}}
    for path, value in flat.items():
        (params["layers"] if path[0] == "layers" else params)[path[-1]] = value
    return params


def _at(params: Params, path: tuple[str, ...]) -> Any:
    for name in path:
        params = params[name]
    return params


def _their_tensors(config: Architecture, params: Params) -> Iterator[tuple[str, np.ndarray]]:
    for name, parts in layout.stored(families.parameters(config)).items():
        ours = [_at(params, param.path) for param in parts]
        if not parts[0].in_layer:
            yield name, layout.to_theirs(parts, [np.asarray(whole) for whole in ours])
            continue
        for i in range(config.num_layers):
            yield name.format(i), layout.to_theirs(parts, [np.asarray(stacked[i]) for stacked in ours])


def _their_shapes(config: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each of their tensors, in the order of `_their_tensors`."""
    for name, parts in layout.stored(families.parameters(config)).items():
        layers = range(config.num_layers if parts[0].in_layer else 1)
        yield from ((name.format(i), layout.stored_shape(parts)) for i in layers)


def _split(sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Files of at most 5 GB → the tensors in each, in order."""
    parts: list[list[str]] = [[]]
    for name, size in sizes.items():
        if parts[-1] and sum(sizes[other] for other in parts[-1]) + size > _SHARD_BYTES:
            parts.append([])
        parts[-1].append(name)
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, 1)}


def save(
    folder: epath.Path,
    config: Architecture,
    params: Params,
    special: Special,
    *,
    dtype: str = "float32",
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that transformers loads, in weight files of at most 5 GB; one of them is in memory.

    `origin`: fields to add to config.json, which is written last: a folder without it is no model folder.
    Raises UserError if a weight file cannot be written, and for weights beyond what `dtype` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "generation_config.json", hf_config.generation_fields(special))
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = _their_tensors(config, params)
    sizes = {name: math.prod(shape) * numpy_dtype.itemsize for name, shape in _their_shapes(config)}
    files = _split(sizes)
    for file, names in files.items():
        part = {name: _narrowed(name, tensor, numpy_dtype) for name, tensor in islice(tensors, len(names))}
        save_file(part, folder / file)
    if len(files) > 1:
        where = {name: file for file, names in files.items() for name in names}
        _write(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where})
    _write(folder / "config.json", {**hf_config.fields(config, special, dtype), **(origin or {})})


def _narrowed(name: str, tensor: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # reported below
        narrowed = np.ascontiguousarray(tensor.astype(dtype))
    if not np.isfinite(narrowed).all():
        largest = float(ml_dtypes.finfo(dtype).max)
        raise UserError(
            f"{name} holds weights beyond {largest:g}, the largest number of {dtype}; choose another --dtype"
        )
    return narrowed


def _write(file: epath.Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=1))


def save_file(tensors: dict[str, np.ndarray], file: epath.Path) -> None:
    """Writes a safetensors file: to a disk directly, to a bucket by way of a local file. Raises UserError."""
    try:
        if "://" not in str(file):
            save_safetensors(tensors, Path(file), metadata={"format": "pt"})
            Path(file).chmod(_file_mode())  # the package lets nobody else read it
            return
        with tempfile.NamedTemporaryFile() as local:
            save_safetensors(tensors, local.name, metadata={"format": "pt"})
            with open(local.name, "rb") as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 24)
    except SafetensorError as error:
        raise UserError(f"{file}: cannot be written ({error}); free some space, then run the command again") from None


def _file_mode() -> int:
    """The permissions of a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def fingerprint(folder: epath.Path) -> str:
    """A hash of what decides the model of a folder. Raises UserError, see Weights."""
    return Weights(folder).fingerprint()
