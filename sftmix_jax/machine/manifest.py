"""Manifests: the size and checksum of every file of a folder, and what the folder is of.

The manifest is written last, so a folder without one was not finished. A folder is used only if it holds exactly the
files of its manifest, unchanged; hidden files and what file managers leave (Thumbs.db) are no part of it. Of a folder
that many processes have written each sums its own files, in a part of the manifest. On an object store the sums are the
store's own (CRC-32C), and nothing is read back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
from etils import epath

from sftmix_jax.machine import files
from sftmix_jax.machine.errors import UserError

_NAME = "manifest.json"
_CHUNK = 1 << 24  # bytes in memory at a time


def seal(folder: epath.Path, of: dict[str, Any], part: int = 0, parts: int = 1) -> None:
    """Writes the manifest of a folder that is complete; or one process's part, with the files that it has written."""
    found = _checksums(folder, lambda name: _writer(name, parts) == part)
    record = {"of": of, "parts": parts, "files": found}
    files.replace(folder / _part(part), json.dumps(record).encode())


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
    """True if there is a manifest with all its parts; says nothing about the files."""
    if not (folder / _NAME).exists():
        return False
    try:
        parts = files.read_json(folder / _NAME, "", parts=int)["parts"]
    except UserError:
        return True  # it was written, and then damaged
    return all((folder / _part(i)).exists() for i in range(parts))


def damage(folder: epath.Path, of: dict[str, Any]) -> str | None:
    """What is wrong with a folder, or None if it is `of` what it should be and every file is as it was sealed."""
    if not folder.is_dir():
        return "it is no folder" if files.exists(folder) else "it is missing"
    if not is_sealed(folder):
        return "it has no manifest, so it was not finished"
    try:
        parts = files.read_json(folder / _NAME, "", parts=int)["parts"]
        records = [files.read_json(folder / _part(i), "", of=dict, files=dict) for i in range(parts)]
    except UserError:
        return "its manifest is not readable"
    sums: dict[str, Any] = {}
    for record in records:
        if record["of"] != of:
            return f"it is of {_listed(record['of'])}, not of {_listed(of)}"
        sums |= record["files"]
    if not sums:
        return "its manifest is empty"
    try:
        names = _names(folder)
        for name in sorted(names ^ sums.keys()):
            return f"the file {name} " + ("was not there when it was saved" if name in names else "is missing")
        found = _checksums(folder)
        for name in sorted(names):
            if found[name] != sums[name]:
                return f"the file {name} has changed since it was saved"
    except OSError as error:
        return f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
    return None


def sums(folder: epath.Path, names: Sequence[str]) -> str:
    """Sizes and checksums of some files of a sealed folder, as its manifest has them. Raises UserError."""
    found = files.read_json(folder / _NAME, "", files=dict)["files"]
    return json.dumps([found[name] for name in names])


def _part(index: int) -> str:
    """The name of a process's part of the manifest; the first is the manifest itself."""
    return f"manifest-{index}.json" if index else _NAME


def _writer(name: str, parts: int) -> int:
    """Which process has written a file of an Orbax checkpoint: the one that its path names, else the first."""
    found = re.search(r"\bprocess_(\d+)\b", name)
    return int(found[1]) if found and int(found[1]) < parts else 0


def _names(folder: epath.Path) -> set[str]:
    """Every file below a folder by its relative path, without the manifest."""
    return set(_objects(folder) if files.is_remote(folder) else _files(folder))


def _checksums(folder: epath.Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, list[Any]]:
    """Size in bytes and checksum of every file below a folder that is wanted. Raises OSError."""
    if files.is_remote(folder):
        return {name: _stored(*each) for name, each in _objects(folder).items() if wanted(name)}
    return {name: _checksum(file) for name, file in _files(folder).items() if wanted(name)}


def _objects(folder: epath.Path) -> dict[str, tuple[epath.Path, dict[str, Any]]]:
    """Every object below a folder of a store with what the store says of it, by its relative path."""
    storage, path = fsspec.core.url_to_fs(os.fspath(folder))
    storage.invalidate_cache()
    found = {name.removeprefix(f"{path}/"): about for name, about in storage.find(path, detail=True).items()}
    return {name: (folder / name, about) for name, about in found.items() if not _is_manifest(name)}


def _stored(file: epath.Path, about: dict[str, Any]) -> list[Any]:
    """Size and checksum of an object: the store's own where it says one."""
    return [about["size"], about["crc32c"]] if "crc32c" in about else _checksum(file)


def _is_manifest(name: str) -> bool:
    return name.startswith("manifest") and "/" not in name and ".json" in name


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """Every file below a folder by its relative path, without the manifest."""
    return {name: file for name, file in _walk(folder).items() if not _is_manifest(name)}


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


def _checksum(file: epath.Path) -> list[Any]:
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
