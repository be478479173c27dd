"""What the judge may ask to be done with an object that stays with the prisoner, by name."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from typing import Any


def _awaited(coroutine: Any) -> Any:
    """A coroutine's result, from an event loop of its own."""
    import asyncio

    return asyncio.run(coroutine)


def _exit(manager: Any, error: BaseException | None) -> Any:
    return type(manager).__exit__(manager, type(error) if error else None, error, None)


_OPERATORS = (
    "getitem",
    "setitem",
    "delitem",
    "contains",
    "add",
    "mul",
    "matmul",
    "lshift",
    "rshift",
    "and_",
    "or_",
    "iadd",
    "imul",
    "isub",
    "sub",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "xor",
    "index",
    "neg",
    "pos",
    "invert",
    "abs",
)
BY_NAME: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in _OPERATORS},
    **{kind.__name__: kind for kind in (bool, int, float, complex, str)},
    **{each.__name__: each for each in (len, hash, repr, format, round, divmod, reversed, isinstance, delattr)},
    **{name: getattr(math, name) for name in ("trunc", "floor", "ceil")},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": _exit,
    "send": lambda generator, value: generator.send(value),
    "throw": lambda generator, error: generator.throw(error),
    "close": lambda generator: generator.close(),
    "await": _awaited,
}
