"""The arguments behind the colon of `dmt.py:size=7b,k=1/16` and `tiny:math,rows=200`.

Values have names and stand between commas. The first value may stand without its name: it is the first argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Flag, Number

Reader = Callable[[str], Any]  # text → value; raises UserError with the rule


def read(where: str, text: str, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """`7b,k=1/16` → {"size": "7b", "k": Fraction(1, 16)}; `where` is what stands before the colon. Raises UserError."""
    values: dict[str, Any] = {}
    spec = f"{where}:{text}"
    for position, part in enumerate(text.split(",") if text else ()):
        name, equals, value = part.partition("=")
        if not readers:
            raise UserError(f"{spec}: takes no arguments; leave ':{text}' out")
        if not equals and position:
            raise UserError(f"{spec}: '{part}' has no name; write {_example(list(readers)[1:] or [*readers], part)}")
        if not equals:
            name, value = next(iter(readers)), part
        if name not in readers:
            raise UserError(f"{spec}: no argument '{name}'; {did_you_mean(name, readers)}")
        if name in values:
            raise UserError(f"{spec}: '{name}' is given twice; leave one out")
        try:
            values[name] = readers[name](value)
        except UserError as error:
            raise UserError(f"{spec}: {name}: {error}") from None
    return values


def readers(function: Callable[..., Any]) -> dict[str, Reader]:
    """How the arguments of a function are read, by their annotations: str, int, float, bool or Fraction; else text."""
    parameters = inspect.signature(function).parameters
    return {name: _READERS.get(_name(each.annotation), str) for name, each in parameters.items()}


def described(function: Callable[..., Any]) -> list[str]:
    """The arguments of a function with their defaults, as `k=1/256`."""
    return [
        each.name if each.default is each.empty else f"{each.name}={each.default}"
        for each in inspect.signature(function).parameters.values()
    ]


def _name(annotation: Any) -> str:
    """Of a type, also of one that stands as text, as under `from __future__ import annotations`."""
    return annotation.rpartition(".")[2] if isinstance(annotation, str) else getattr(annotation, "__name__", "")


def _example(names: list[str], value: str) -> str:
    return " or ".join(f"{name}={value}" for name in names)


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{text!r}; must be a whole number") from None


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{text!r}; must be a number or a fraction such as 1/16") from None


def _float(text: str) -> float:
    return float(_fraction(text)) if "/" in text else Number().parse(text)


_READERS: dict[str, Reader] = {
    "int": _int,
    "float": _float,
    "bool": Flag().parse,
    "Fraction": _fraction,
}
