"""Identities: hashes of what decides a result, and of nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from sftmix_jax.machine import files
from sftmix_jax.machine.ranges import AnyOf, Items, Number, Table


def plain(value: Any) -> Any:
    """Dataclasses and tuples as what JSON holds. A config's numbers are floats, also where an int was written."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {field.name: plain(_as_declared(field.metadata.get("range"), item)) for field, item in held}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _as_declared(allowed: Any, value: Any) -> Any:
    """1 and 1.0, 0.0 and -0.0 are one value where any number is allowed, and give one identity."""
    if isinstance(allowed, Table) and isinstance(value, dict):
        return {key: _as_declared(allowed.each, item) for key, item in value.items()}
    if isinstance(allowed, Items) and isinstance(value, list | tuple):
        return [_as_declared(allowed.each, item) for item in value]
    ranges = allowed.ranges if isinstance(allowed, AnyOf) else (allowed,)
    is_number = type(value) in (int, float) and any(isinstance(each, Number) for each in ranges)
    return float(value) + 0.0 if is_number else value


def digest(record: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that change with anything in the record, but not with key order."""
    return files.digest(plain(record))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The fields in which two JSON trees differ, as `path: old → new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} → {new!r}"]
