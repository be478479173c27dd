"""JSON records: written atomically by one process for all, read and checked in one place."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import socket
import tempfile
import threading
from pathlib import Path
from types import UnionType
from typing import Any

from etils import epath

from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError


def is_remote(path: epath.Path) -> bool:
    """True for a path in an object store (gs://)."""
    return "://" in os.fspath(path)


def write_json(file: epath.Path, record: Any) -> None:
    """Replaces a JSON file. Of several processes the first one writes."""
    if processes.is_first():
        replace(file, json.dumps(record, indent=1).encode())


def digest(record: Any) -> str:
    """Twelve hexadecimal digits that change with anything in a JSON object, but not with key order."""
    return content_digest(json.dumps(record, sort_keys=True).encode())


def content_digest(data: bytes) -> str:
    """Twelve hexadecimal digits that change with any byte."""
    return hashlib.sha256(data).hexdigest()[:12]


def replace(file: epath.Path, data: bytes) -> None:
    """Replaces a file atomically: a reader sees the old content or the new one, also after a power failure.

    A folder of that name is renamed to NAME.damaged, and reported.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(file):
        file.write_bytes(data)  # an object is visible once it is complete
        return
    if file.is_dir() and not os.path.islink(file):
        aside = file.with_name(f"{file.name}.damaged")
        remove(aside)
        file.rename(aside)
        terminal.err(f"{file}: was a folder instead of a file; set aside as {aside.name}")
    partial = os.fspath(unfinished(file))
    try:
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def unfinished(path: epath.Path) -> epath.Path:
    """Where this thread builds what is then renamed to `path`; no other thread of any machine uses that name."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.partial")


def read_json(file: epath.Path, remedy: str, **fields: type) -> dict[str, Any]:
    """The object in a JSON file, with at least `fields` of these types.

    Raises UserError with the file, what is wrong and `remedy`, if it is missing, truncated or of another form.
    """
    record = _parsed(_read(file, remedy), str(file), remedy)
    for name, kind in fields.items():
        if name not in record:
            raise UserError(f"{file}: has no field '{name}'; {remedy}")
        if not isinstance(record[name], kind) or (kind is int and isinstance(record[name], bool)):
            raise UserError(f"{file}: its field '{name}' is {_named(record[name])}; {remedy}")
    return record


def read_lines(file: epath.Path, remedy: str) -> list[dict[str, Any]]:
    """The objects in a file with a JSON object per line. Raises UserError as `read_json` does, with the line."""
    lines = _read(file, remedy).splitlines()
    return [_parsed(line, f"{file}:{number}", remedy) for number, line in enumerate(lines, 1)]


def read_sound_lines(file: epath.Path, **fields: type | UnionType) -> list[dict[str, Any] | None]:
    """The objects in a file with a JSON object per line; None for a line without one that has `fields` of these types.

    For files of which a part is worth keeping. Raises UserError if the file cannot be read at all.
    """
    found: list[dict[str, Any] | None] = []
    for line in _read(file, "move it away").splitlines():
        try:
            record = _parsed(line, "", "")
        except UserError:
            found.append(None)
            continue
        found.append(record if all(isinstance(record.get(name), kind) for name, kind in fields.items()) else None)
    return found


def _read(file: epath.Path, remedy: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: {missing(file) or 'no such file'}; {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{file}: is a folder instead of a file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); {remedy}") from None


def missing(path: epath.Path) -> str:
    """`is a link to TARGET, which is not there`; empty for anything else."""
    dangling = os.path.islink(path) and not path.exists()
    return f"is a link to {os.readlink(path)}, which is not there" if dangling else ""


def check_folder(folder: epath.Path) -> None:
    """Raises UserError if a file, or a link that leads nowhere, stands where a folder is or will be made."""
    if exists(folder) and not folder.is_dir():
        found = missing(folder) or "is a file instead of a folder"
        raise UserError(f"{folder}: {found}; restore the folder, or remove this, then run the same command again")


def _parsed(text: bytes, where: str, remedy: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON, so it was truncated or changed ({error}); {remedy}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: holds {_named(record)} instead of an object; {remedy}")
    return record


def matching(folder: epath.Path, pattern: str) -> list[epath.Path]:
    """What lies in a folder under names like `*.json`, sorted, but for hidden files; nothing where there is no folder.

    `epath.Path.glob` would read a `[` or `*` in the folder's own path as a pattern, too.
    """
    if not folder.is_dir():
        return []
    every = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in every if fnmatch.fnmatchcase(path.name, pattern))


def is_litter(name: str) -> bool:
    """True for what file managers and network file systems leave in a folder: .DS_Store, ._NAME, Thumbs.db, .nfs0…"""
    return name in _LITTER or name.startswith(("._", ".nfs", ".fuse_hidden"))


_LITTER = frozenset({".DS_Store", ".directory", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"})


def exists(path: epath.Path) -> bool:
    """True for a link that leads nowhere, too."""
    return os.path.lexists(path) or path.exists()


def check_out(folder: epath.Path, replaced: bool = False) -> None:
    """Raises UserError if nothing can be written in `folder`, or if no such folder can be made. Leaves nothing there.

    `replaced`: another folder, written beside it, is to take its place. A full disk or quota stays an OSError, for
    sftmix_jax.machine.command.
    """
    if is_remote(folder):
        return
    target = Path(folder).resolve()
    places = target.parents if replaced else (target, *target.parents)
    try:
        place = next(each for each in places if each.exists())
        os.rmdir(tempfile.mkdtemp(prefix=f".{target.name}.partial", dir=place))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = error.strerror or type(error).__name__
        raise UserError(f"{folder}: cannot be written ({reason}); choose another --out") from None


def remove(path: epath.Path) -> None:
    """Deletes a file, a link or a folder with all that is in it; nothing if there is none."""
    if path.is_dir() and not os.path.islink(path):
        path.rmtree()
    elif exists(path):
        path.unlink()


_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


def _named(value: Any) -> str:
    return _NAMES.get(type(value), "a number")
