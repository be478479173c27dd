"""Plain values as JSON and back: the only thing that crosses the sandbox's wall.

Numbers, text, None and the built-in containers; a subclass arrives as its plain base, so that an `__eq__` of
the model's own never meets a test.
"""

from __future__ import annotations

import json
from typing import Any


def encode(value: Any) -> str:
    """Raises TypeError for what is no plain value."""
    return json.dumps(_plain(value))


def decode(text: str | bytes) -> Any:
    return _whole(json.loads(text))


def _plain(value: Any) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes):
        return ["bytes", value.decode("latin-1")]
    if isinstance(value, dict):
        return ["dict", [[_plain(key), _plain(own)] for key, own in dict.items(value)]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items: Any = kind.__iter__(value)  # type: ignore[arg-type]
            return [kind.__name__, [_plain(item) for item in items]]
    raise TypeError(f"a {type(value).__name__} is no plain value")


def _whole(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    match kind:
        case "complex":
            return complex(*rest)
        case "bytes":
            return rest[0].encode("latin-1")
        case "dict":
            return {_whole(key): _whole(own) for key, own in rest[0]}
        case "list" | "tuple" | "set" | "frozenset":
            return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](map(_whole, rest[0]))
    raise ValueError("not a value of this wire")
