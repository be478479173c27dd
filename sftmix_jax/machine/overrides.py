"""Sets fields of a config tree by their paths: `stages.general.batch.batch_size` to the text `8`.

    domains.math.columns.question=q     an entry of a dict of plain values, also a new one
    stages.general.mixture.code=new     a new entry of a dict of configs, with its defaults
    stages.general.mixture.math=None    removes such an entry
    stages.general.steps=100            a field; None where a field's default is None

Values are read by the ranges of their fields (sftmix_jax.machine.ranges), which are checked afterwards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Range, Table, Tree, range_of

_NAME = re.compile(r"""\[(?:'([^']*)'|"([^"]*)")\]|\.?([^.\[\]]+)""")


def apply(tree: Any, overrides: Iterable[tuple[str, str]], where: str) -> None:
    """Sets (path, text) pairs of a config tree in place; `where` names the tree in errors. Raises UserError.

    New entries are made first. A config with a class attribute EXCLUSIVE, the names of fields of which one is set,
    forgets those of its file when the first of them is overridden.
    """
    made: list[Any] = []
    forgotten: list[Any] = []
    held: Any
    allowed: Range
    for path, text in sorted(overrides, key=lambda pair: pair[1] != "new"):
        *above, last = _names(path, where)
        held, allowed, is_new, at = tree, Tree(type(tree)), False, where
        for name in above:
            at = f"{at}.{name}"
            held, allowed = _entered(held, allowed, name, at, is_new)
            is_new = is_new or any(held is each for each in made)
        _put(held, allowed, last, text, f"{at}.{last}", is_new, made, forgotten)


def _names(path: str, where: str) -> list[str]:
    """`domains['my-data'].path` → domains, my-data, path. Raises UserError."""
    names, position = [], 0
    while position < len(path) and (found := _NAME.match(path, position)):
        names.append(next(part for part in found.groups() if part is not None))
        position = found.end()
    if not names or position < len(path):
        raise UserError(f"--{where}.{path}: is no path of fields; write it as --{where}.stages.general.epochs=VALUE")
    return names


def _entered(held: Any, allowed: Range, name: str, at: str, is_new: bool) -> tuple[Any, Range]:
    """The value of a field or an entry, with its range. Raises UserError."""
    if isinstance(allowed, Tree):
        field = _field(held, name, at)
        return getattr(held, name), range_of(field)
    if not isinstance(allowed, Table) or not isinstance(held, dict):
        raise UserError(f"--{at}: {at.rpartition('.')[0]} holds one value and has no field '{name}'")
    if name not in held and is_new and isinstance(allowed.each, type):
        held[name] = allowed.each()
    if name not in held:
        raise _unknown(held, name, at, allowed)
    return held[name], allowed.each if isinstance(allowed.each, Range) else Tree(allowed.each)


def _put(
    held: Any, allowed: Range, name: str, text: str, at: str, is_new: bool, made: list[Any], forgotten: list[Any]
) -> None:
    """Sets the last name of a path. Raises UserError."""
    if isinstance(allowed, Table) and isinstance(held, dict):
        if isinstance(allowed.each, Range):
            held[name] = allowed.each.value(text)
        elif text == "new" and name not in held:
            held[name] = allowed.each()
            made.append(held[name])
        elif name not in held and not is_new:
            raise _unknown(held, name, at, allowed)
        elif text == "None" and name in held:
            del held[name]
        else:
            raise _has_fields(at)
        return
    if not isinstance(allowed, Tree):
        raise UserError(f"--{at}: {at.rpartition('.')[0]} holds one value and has no field '{name}'")
    field = _field(held, name, at)
    own = range_of(field)
    if isinstance(own, Tree | Table):
        raise _has_fields(at)
    exclusive = getattr(held, "EXCLUSIVE", ())
    if name in exclusive and not any(held is each for each in forgotten):
        forgotten.append(held)
        for each in exclusive:
            setattr(held, each, None)
    setattr(held, name, None if text == "None" and field.default is None else own.value(text))


def _field(config: Any, name: str, at: str) -> dataclasses.Field[Any]:
    fields = {field.name: field for field in dataclasses.fields(config)}
    if name not in fields:
        raise UserError(f"--{at}: no field '{name}'; {did_you_mean(name, fields)}")
    return fields[name]


def _unknown(held: dict[str, Any], name: str, at: str, allowed: Table) -> UserError:
    new = f"; to add it: --{at}=new" if isinstance(allowed.each, type) else ""
    return UserError(f"--{at}: no field '{name}'; {did_you_mean(name, held)}{new}")


def _has_fields(at: str) -> UserError:
    return UserError(f"--{at}: holds fields of its own; set one of them: --{at}.KEY=VALUE")
