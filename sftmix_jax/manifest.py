"""Manifests: the size and CRC-32 of every file of a folder, and what the folder is of.

The manifest is written last, so a folder without one was not finished. A folder is used only if it holds exactly the
files of its manifest, unchanged. Hidden files and what file managers leave (Thumbs.db) are no part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from typing import Any

from etils import epath

from sftmix_jax import files
from sftmix_jax.errors import UserError

_NAME = "manifest.json"
_CHUNK = 1 << 24  # bytes in memory at a time


def seal(folder: epath.Path, of: dict[str, Any]) -> None:
    """Writes the manifest of a folder that is complete."""
    record = {"of": of, "files": {name: _checksum(file) for name, file in _files(folder).items()}}
    files.replace(folder / _NAME, json.dumps(record).encode())


def install(building: epath.Path, folder: epath.Path, of: dict[str, Any]) -> None:
    """Renames a sealed folder to `folder`, unless another process has put a sound one there."""
    if damage(folder, of) is None:
        return
    damaged = folder.with_name(f"{building.name}.damaged")
    with contextlib.suppress(OSError):  # there is none, or another process has taken it away
        folder.rename(damaged)
        files.remove(damaged)
    with contextlib.suppress(OSError):  # another process was faster
        building.rename(folder)


def is_sealed(folder: epath.Path) -> bool:
    """True if there is a manifest; says nothing about the files."""
    return (folder / _NAME).exists()


def damage(folder: epath.Path, of: dict[str, Any]) -> str | None:
    """What is wrong with a folder, or None if it is `of` what it should be and every file is as it was sealed."""
    if not folder.is_dir():
        return "it is no folder" if files.exists(folder) else "it is missing"
    if not is_sealed(folder):
        return "it has no manifest, so it was not finished"
    try:
        record = files.read_json(folder / _NAME, "", of=dict, files=dict)
    except UserError:
        return "its manifest is not readable"
    if record["of"] != of:
        return f"it is of {_listed(record['of'])}, not of {_listed(of)}"
    if not record["files"]:
        return "its manifest is empty"
    try:
        found = _files(folder)
        for name in sorted(found.keys() ^ record["files"].keys()):
            return f"the file {name} " + ("was not there when it was saved" if name in found else "is missing")
        for name, file in found.items():
            if _checksum(file) != record["files"][name]:
                return f"the file {name} has changed since it was saved"
    except OSError as error:
        return f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
    return None


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """Every file below a folder by its relative path, without the manifest."""
    return {name: file for name, file in _walk(folder).items() if not name.startswith(_NAME)}


def _walk(folder: epath.Path) -> dict[str, epath.Path]:
    """Links to folders are listed as files, since following them may not end."""
    found: dict[str, epath.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or files.is_litter(path.name):
            continue
        if path.is_dir() and not os.path.islink(path):
            found |= {f"{path.name}/{name}": file for name, file in _walk(path).items()}
        else:
            found[path.name] = path
    return found


def _checksum(file: epath.Path) -> list[int]:
    """Size in bytes and CRC-32. Raises OSError."""
    if not files.is_remote(file) and not os.path.isfile(file):  # a pipe would block
        raise FileNotFoundError(0, "not a file", os.fspath(file))
    crc, size = 0, 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return [size, crc]


def _listed(of: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(of.items()))
