"""The weights of a model folder in safetensors files, on a disk or in a bucket. Parts are read on demand.

Which files belong to the model is decided as transformers decides it, but where they hold two models. Headers are
validated by the safetensors package. It opens local files only, so each header is given to it at the head of a sparse
temporary file.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from typing import NamedTuple, TypeAlias

import fsspec
import ml_dtypes
import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.model_folder import read_object

Index: TypeAlias = tuple[slice, ...]

_FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
_LENGTH = 8  # bytes before the header that hold its length
_MAX_HEADER = 100 << 20  # bytes; the package accepts less
_CHUNK = 1 << 24  # bytes that are compared at a time
_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Buffers of old checkpoints that follow from the config. Indexes and shards often disagree about them.
DERIVED = "rotary_emb.inv_freq"


class _Stored(NamedTuple):
    """Dtype, shape and byte range of a tensor in its file."""

    file: epath.Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Folder:
    """The tensors of a model folder, by name."""

    def __init__(self, folder: epath.Path):
        """Raises UserError if weight files are missing, damaged, or disagree with their index or with each other."""
        self._storage, _ = fsspec.core.url_to_fs(os.fspath(folder))
        self.note = ""  # which weight files of the folder are left out, and why; empty where there is no choice
        single = folder / _SINGLE
        if single.exists():
            self.files, self.where = [single], self._header(single)
            if (folder / INDEX).exists():
                self.note = self._compare(folder)
        else:
            self.files, self.where = self._indexed(folder)
        self._last: tuple[tuple[str, int, int], np.ndarray] | None = None

    def _indexed(self, folder: epath.Path) -> tuple[list[epath.Path], dict[str, _Stored]]:
        """The files that the index names, and their tensors."""
        weight_map = _weight_map(folder)
        files = [folder / name for name in sorted(set(weight_map.values()))]
        where: dict[str, _Stored] = {}
        for file in files:
            stored = self._header(file)
            _check_shard(file, set(stored), {name for name, shard in weight_map.items() if shard == file.name})
            where.update(stored)
        return files, where

    def _compare(self, folder: epath.Path) -> str:
        """Which files are left out where a single file and an index stand side by side; empty if they are one.

        transformers reads the single file and says nothing of the index. Raises UserError if the index gives a whole
        model too, and another one: which of them is meant cannot be known.
        """
        try:
            files, indexed = self._indexed(folder)
        except UserError as error:
            return f"{folder}: {_SINGLE} is read, and {INDEX} is not, because its files are not whole ({error})"
        if [file.name for file in files] == [_SINGLE]:
            return ""
        if difference := self._difference(indexed):
            raise UserError(
                f"{folder}: holds two models, {_SINGLE} and the files of {INDEX}, which differ: {difference}; remove "
                "the one that you do not mean"
            )
        return f"{folder}: {_SINGLE} is read; the files of {INDEX} hold the same tensors and are not"

    def _difference(self, others: dict[str, _Stored]) -> str:
        """The first tensor that is not the same in the single file and in the others; empty if there is none."""
        for name in sorted(self.where.keys() | others.keys()):
            mine, other = self.where.get(name), others.get(name)
            if not mine or not other:
                if name.endswith(DERIVED):
                    continue
                return f"only {(mine or others[name]).file.name} holds {name}"
            if mine[1:3] != other[1:3]:
                forms = (f"{t.dtype} of shape {t.shape} in {t.file.name}" for t in (mine, other))
                return f"{name} is {', '.join(forms)}"
            for start in range(0, mine.end - mine.begin, _CHUNK):
                one, two = (
                    self._bytes(t.file, t.begin + start, min(t.begin + start + _CHUNK, t.end)) for t in (mine, other)
                )
                if one != two:
                    return f"{name} has other values in {other.file.name}"
        return ""

    def _header(self, file: epath.Path) -> dict[str, _Stored]:
        """The tensors of one file, as the safetensors package reads its header."""
        if not file.exists() or file.is_dir():
            raise UserError(f"{file}: this weight file is missing; download it again")
        size = self._storage.size(os.fspath(file))
        length = int.from_bytes(self._bytes(file, 0, min(_LENGTH, size)), "little")
        head = self._bytes(file, 0, min(_LENGTH + length, _LENGTH + _MAX_HEADER, size))
        if head.startswith(b"version https://git-lfs"):
            raise UserError(f"{file}: a Git LFS pointer, not the weights themselves; fetch them with git lfs pull")
        with tempfile.NamedTemporaryFile() as sparse:
            sparse.write(head)
            sparse.truncate(size)
            sparse.flush()
            try:
                with safe_open(sparse.name, "np") as opened:
                    slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
                    tensors = [(name, s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()]
            except SafetensorError as error:
                raise UserError(f"{file}: not a readable safetensors file ({error}); download it again") from None
        # The package guarantees that the tensors follow each other without holes, up to the end of the file.
        stored, begin = {}, _LENGTH + length
        for name, dtype, shape in tensors:
            end = begin + math.prod(shape) * _bits(dtype) // 8
            stored[name] = _Stored(file, dtype, shape, begin, end)
            begin = end
        if begin != size:
            raise UserError(f"{file}: its tensors end at byte {begin:,} of {size:,}; only float weights can be read")
        return stored

    def _bytes(self, file: epath.Path, begin: int, end: int) -> bytes:
        return self._storage.cat_file(os.fspath(file), begin, end) if end > begin else b""

    def shape(self, name: str) -> tuple[int, ...]:
        return self.where[name].shape

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The tensor, or a part of it, as float32. Reads the rows of that part.

        Raises UserError for dtypes that are not float, and for NaN and infinity.
        """
        stored = self.where[name]
        if stored.dtype not in _FLOATS:
            raise UserError(f"{stored.file}: {name} is {stored.dtype}; only float weights can be read")
        rows = range(*index[0].indices(stored.shape[0])) if index else range(stored.shape[0])
        part = self._rows(name, rows.start, rows.stop)[(slice(None), *index[1:])].astype(np.float32)
        if not np.isfinite(part).all():
            raise UserError(
                f"{stored.file}: {name} holds NaN or infinite values; the model cannot be used. "
                "Download the file again, or export it from a sound checkpoint"
            )
        return part

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows as stored. Caches the last ones: devices side by side ask for columns of the same rows."""
        if self._last is None or self._last[0] != (name, start, stop):
            stored, rest = self.where[name], self.where[name].shape[1:]
            dtype = np.dtype(_FLOATS[stored.dtype])
            row = math.prod(rest) * dtype.itemsize
            raw = self._bytes(stored.file, stored.begin + start * row, stored.begin + stop * row)
            self._last = (name, start, stop), np.frombuffer(raw, dtype).reshape(stop - start, *rest)
        return self._last[1]


def _weight_map(folder: epath.Path) -> dict[str, str]:
    """Tensor name → file name, from the folder's index. Raises UserError."""
    file = folder / INDEX
    if not file.exists():
        names = sorted(path.name for path in (folder.iterdir() if folder.is_dir() else ()))
        others = [name for name in names if name.endswith((".safetensors", ".bin", ".pth")) and name[0] != "."]
        if others and re.search(r"-\d+-of-\d+\.safetensors$", others[0]):
            raise UserError(f"{folder}: has {others[0]}, but no {INDEX}, which names the shards; download it too")
        found = f" (found {others[0]}; convert or rename it)" if others else ""
        raise UserError(f"{folder}: neither {_SINGLE} nor {INDEX}{found}")
    weight_map = read_object(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{file}: weight_map must be an object that maps tensors to files; download the index again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\x00]+\.safetensors", shard):
            raise UserError(f"{file}: weight_map[{name!r}] is {shard!r}; must be a *.safetensors file of this folder")
    return weight_map


def _check_shard(file: epath.Path, stored: set[str], listed: set[str]) -> None:
    """Raises UserError for a tensor that only one of the index and the shard knows."""
    for problem, names in (
        (f"lacks a tensor that {INDEX} lists", listed - stored),
        (f"holds a tensor that {INDEX} does not place in it", stored - listed),
    ):
        if named := sorted(name for name in names if not name.endswith(DERIVED)):
            raise UserError(f"{file}: {problem}: {named[0]}; download both again")


def _bits(dtype: str) -> int:
    """Bits per element of a safetensors dtype: BOOL, U8, F8_E4M3, BF16, C64, …"""
    return 8 if dtype == "BOOL" else int(re.sub(r"^\D+(\d+).*", r"\1", dtype))
