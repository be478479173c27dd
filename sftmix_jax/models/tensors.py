"""The safetensors files of a model folder, on a disk or in a bucket: parts of them are read when they are asked for.

The safetensors package opens files on a disk alone. The format is its README's: a head in JSON, then the numbers.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any, NamedTuple, TypeAlias

import fsspec
import ml_dtypes
import numpy as np
from etils import epath

from sftmix_jax.errors import UserError

Index: TypeAlias = tuple[slice, ...]

_FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
_LENGTH = 8  # bytes in front of the header that say how long it is
_LONGEST = 100 << 20  # header that the format allows


class _Stored(NamedTuple):
    """A tensor as its file's header describes it."""

    file: epath.Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  # of its bytes in the file
    end: int


class Folder:
    """The tensors of a model folder, by name."""

    def __init__(self, folder: epath.Path):
        """Raises UserError where there is none, or one that cannot be read."""
        self.files = sorted(folder.glob("*.safetensors"))
        if not self.files:
            others = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pth"))]
            found = f" (found {others[0]}: convert it to safetensors first)" if others else ""
            raise UserError(f"{folder}: no *.safetensors file{found}")
        self._storage, _ = fsspec.core.url_to_fs(os.fspath(folder))
        self.where: dict[str, _Stored] = {}
        for file in self.files:
            try:
                self.where.update(self._header(file))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}: not a readable safetensors file ({error}); download it again") from None
        self._last: tuple[tuple[str, int, int], np.ndarray] | None = None

    def _header(self, file: epath.Path) -> dict[str, _Stored]:
        """The format's head: its length (8 bytes, little-endian), then JSON with each tensor's place behind it."""
        size = self._storage.size(os.fspath(file))
        length = int.from_bytes(self._bytes(file, 0, _LENGTH), "little")
        if not 0 < length <= min(_LONGEST, size - _LENGTH):
            raise ValueError(f"a head of {length:,} bytes in a file of {size:,}")
        head: dict[str, Any] = json.loads(self._bytes(file, _LENGTH, _LENGTH + length))
        found = {}
        for name, entry in head.items():
            if name == "__metadata__":
                continue
            begin, end = (_LENGTH + length + offset for offset in entry["data_offsets"])
            if end > size:
                raise ValueError(f"{name} ends {end - size:,} bytes behind the file's end")
            found[name] = _Stored(file, entry["dtype"], tuple(entry["shape"]), begin, end)
        return found

    def _bytes(self, file: epath.Path, begin: int, end: int) -> bytes:
        return self._storage.cat_file(os.fspath(file), begin, end)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.where[name].shape

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The tensor, or a part of it, as float32; of the file the rows of that part are read."""
        stored = self.where[name]
        if stored.dtype not in _FLOATS:
            raise UserError(f"{stored.file}: {name} is {stored.dtype}; only float weights can be read")
        rows = range(*index[0].indices(stored.shape[0])) if index else range(stored.shape[0])
        return self._rows(name, rows.start, rows.stop)[(slice(None), *index[1:])].astype(np.float32)

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """As stored. Devices side by side ask for columns of the same rows: the last ones are kept."""
        if self._last is None or self._last[0] != (name, start, stop):
            stored, rest = self.where[name], self.where[name].shape[1:]
            dtype = np.dtype(_FLOATS[stored.dtype])
            row = math.prod(rest) * dtype.itemsize
            raw = self._bytes(stored.file, stored.begin + start * row, stored.begin + stop * row)
            self._last = (name, start, stop), np.frombuffer(raw, dtype).reshape(stop - start, *rest)
        return self._last[1]
