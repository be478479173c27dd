"""LLaMA checkpoints in Hugging Face's layout: one name table, walked both ways."""

from __future__ import annotations

import hashlib
import json
import math
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
from safetensors.numpy import save_file

from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.models import hf_config
from sftmix_jax.models.hf_config import Special
from sftmix_jax.models.llama import LlamaConfig, Params
from sftmix_jax.models.tensors import DERIVED, INDEX, Folder, Index

# Our path → their name; {} is the layer.
NAMES: dict[tuple[str, ...], str] = {
    ("embed",): "model.embed_tokens.weight",
    ("norm",): "model.norm.weight",
    ("head",): "lm_head.weight",
    ("layers", "attention_norm"): "model.layers.{}.input_layernorm.weight",
    ("layers", "q"): "model.layers.{}.self_attn.q_proj.weight",
    ("layers", "k"): "model.layers.{}.self_attn.k_proj.weight",
    ("layers", "v"): "model.layers.{}.self_attn.v_proj.weight",
    ("layers", "o"): "model.layers.{}.self_attn.o_proj.weight",
    ("layers", "feed_forward_norm"): "model.layers.{}.post_attention_layernorm.weight",
    ("layers", "gate"): "model.layers.{}.mlp.gate_proj.weight",
    ("layers", "up"): "model.layers.{}.mlp.up_proj.weight",
    ("layers", "down"): "model.layers.{}.mlp.down_proj.weight",
}
_SHARD_BYTES = 5 * 10**9


def shapes(config: LlamaConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of one layer's share of each parameter, ours."""
    D, N, K, H = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
    F, V = config.intermediate_size, config.vocab_size
    table = {
        ("embed",): (V, D), ("norm",): (D,), ("head",): (D, V),
        ("layers", "attention_norm"): (D,), ("layers", "feed_forward_norm"): (D,),
        ("layers", "q"): (D, N, H), ("layers", "k"): (D, K, H), ("layers", "v"): (D, K, H),
        ("layers", "o"): (N, H, D),
        ("layers", "gate"): (D, F), ("layers", "up"): (D, F), ("layers", "down"): (F, D),
    }  # fmt: skip
    if config.tied:
        del table["head",]
    return table


def _to_theirs(path: tuple[str, ...], ours: np.ndarray) -> np.ndarray:
    """Linear weights are [out, in] there, with heads and head size flattened."""
    if ours.ndim == 1 or path == ("embed",):
        return ours
    D_first = path[-1] != "o"
    flat = ours.reshape(ours.shape[0], -1) if D_first else ours.reshape(-1, ours.shape[-1])
    return flat.T


def _their_index(path: tuple[str, ...], shape: tuple[int, ...], index: Index) -> Index:
    """Which part of their matrix holds a part of ours; parts of a head are read with the whole head."""
    whole = [slice(*cut.indices(size)[:2]) for cut, size in zip(index, shape, strict=True)]
    if len(shape) == 1 or path == ("embed",):
        return tuple(whole)
    if len(shape) == 2:
        return whole[1], whole[0]
    heads, size = (whole[0], shape[1]) if path[-1] == "o" else (whole[1], shape[2])
    rows = slice(heads.start * size, heads.stop * size)
    return (whole[2], rows) if path[-1] == "o" else (rows, whole[0])


def _to_ours(path: tuple[str, ...], theirs: np.ndarray, shape: tuple[int, ...], index: Index) -> np.ndarray:
    """What `_their_index` gave → that part of ours."""
    if len(shape) == 1 or path == ("embed",):
        return theirs
    if len(shape) == 2:
        return theirs.T
    if path[-1] == "o":
        return theirs.T.reshape(-1, shape[1], theirs.shape[0])[:, index[1]]
    return theirs.T.reshape(theirs.shape[1], -1, shape[2])[:, :, index[2]]


def _their_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return _to_theirs(path, np.broadcast_to(np.int8(0), shape)).shape


class Weights:
    """A model folder whose names and shapes are known to be a LLaMA's; its numbers are read part by part."""

    def __init__(self, folder: epath.Path):
        """Raises UserError for a missing, unused or misshapen tensor, by name; reads no numbers (but see `tied`)."""
        self.config = hf_config.read(folder)
        self._tensors = tensors = Folder(folder)
        self._shapes = shapes(self.config)
        used = set()
        for path, shape in self._shapes.items():
            for name in self._names(path):
                if name not in tensors.where:
                    raise UserError(f"{folder}: the tensor {name} is missing; {did_you_mean(name, tensors.where)}")
                wanted, found = _their_shape(path, shape), tensors.shape(name)
                if found != wanted:
                    raise UserError(f"{folder}: {name} has shape {found}, config.json wants {wanted}")
                used.add(name)
        unused = {name for name in tensors.where if name not in used and not name.endswith(DERIVED)}
        if self.config.tied and "lm_head.weight" in unused:
            # some exporters store the tied matrix twice; another matrix would change the model
            if not np.array_equal(tensors.read("lm_head.weight"), tensors.read(NAMES["embed",])):
                raise UserError(f"{folder}: config.json ties the embeddings, but lm_head.weight differs from them")
            unused.remove("lm_head.weight")
        if unused:
            listed = ", ".join(sorted(unused)[:5])
            raise UserError(f"{folder}: {len(unused)} tensors have no place in a LLaMA: {listed}")

    def _names(self, path: tuple[str, ...]) -> Iterator[str]:
        layers = range(self.config.num_layers) if path[0] == "layers" else range(1)
        return (NAMES[path].format(i) for i in layers)

    def shape(self, path: tuple[str, ...]) -> tuple[int, ...]:
        """Of the whole parameter, with its layers."""
        own = self._shapes[path]
        return (self.config.num_layers, *own) if path[0] == "layers" else own

    def read(self, path: tuple[str, ...], index: Index) -> np.ndarray:
        """A part of one of our parameters, float32; nothing else of it is read."""
        own = self._shapes[path]
        if path[0] != "layers":
            return self._part(NAMES[path], path, own, index)
        names = list(self._names(path))[index[0]]
        first = self._part(names[0], path, own, index[1:])
        out = np.empty((len(names), *first.shape), np.float32)
        for i, name in enumerate(names):
            out[i] = first if i == 0 else self._part(name, path, own, index[1:])
        return out

    def _part(self, name: str, path: tuple[str, ...], shape: tuple[int, ...], index: Index) -> np.ndarray:
        theirs = self._tensors.read(name, _their_index(path, shape, index))
        return np.ascontiguousarray(_to_ours(path, theirs, shape, index))

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
        return list(self._shapes)

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


def load(folder: epath.Path) -> tuple[LlamaConfig, Params]:
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


def _their_tensors(config: LlamaConfig, params: Params) -> Iterator[tuple[str, np.ndarray]]:
    for path in shapes(config):
        if path[0] == "layers":
            stacked = params["layers"][path[1]]
            for i in range(config.num_layers):
                yield NAMES[path].format(i), _to_theirs(path, np.asarray(stacked[i]))
        else:
            yield NAMES[path], _to_theirs(path, np.asarray(params[path[0]]))


def _their_shapes(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each of their tensors, in the order of `_their_tensors`."""
    for path, shape in shapes(config).items():
        layers = range(config.num_layers) if path[0] == "layers" else range(1)
        yield from ((NAMES[path].format(i), _their_shape(path, shape)) for i in layers)


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
    folder: epath.Path, config: LlamaConfig, params: Params, special: Special, *, dtype: str = "float32",
    origin: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes a folder that transformers loads, in weight files of at most 5 GB; one of them is in memory.

    `origin`: fields to add to config.json, which is written last: a folder without it is no model folder.
    Raises UserError if a weight file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "generation_config.json", hf_config.generation_fields(special))
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = _their_tensors(config, params)
    sizes = {name: math.prod(shape) * numpy_dtype.itemsize for name, shape in _their_shapes(config)}
    files = _split(sizes)
    for file, names in files.items():
        part = {name: np.ascontiguousarray(tensor.astype(numpy_dtype)) for name, tensor in islice(tensors, len(names))}
        _save_file(part, folder / file)
    if len(files) > 1:
        where = {name: file for file, names in files.items() for name in names}
        _write(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where})
    _write(folder / "config.json", {**hf_config.fields(config, special, dtype), **(origin or {})})


def _write(file: epath.Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=1))


def _save_file(tensors: dict[str, np.ndarray], file: epath.Path) -> None:
    """To a disk directly; to a bucket by way of a local file."""
    try:
        if "://" not in str(file):
            save_file(tensors, Path(file), metadata={"format": "pt"})
            shutil.copymode(file.with_name("generation_config.json"), file)  # the package lets nobody else read it
            return
        with tempfile.NamedTemporaryFile() as local:
            save_file(tensors, local.name, metadata={"format": "pt"})
            with open(local.name, "rb") as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 24)
    except SafetensorError as error:
        raise UserError(f"{file}: cannot be written ({error}); free some space, then run the command again") from None


def fingerprint(folder: epath.Path) -> str:
    """A hash of what decides the model of a folder. Raises UserError, see Weights."""
    return Weights(folder).fingerprint()
