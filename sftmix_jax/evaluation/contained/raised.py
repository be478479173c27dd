"""Exceptions as they cross between an answer and its tests: by their classes of Python's own, arguments and fields."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset, range)
_OWN_FIELDS = ("name", "path")  # of ImportError, AttributeError and NameError, which do not stand among the arguments
_SPECIAL = ("__cause__", "__notes__")


def described(error: BaseException) -> tuple[Any, ...]:
    """Classes from its own to `BaseException`, arguments, text, fields."""
    if isinstance(error, SyntaxError):
        error.args = (f"{error.msg} (line {error.lineno})",)
        error.msg, error.lineno, error.filename = error.args[0], None, None
    classes = tuple(
        (kind.__module__, kind.__qualname__) for kind in type(error).__mro__ if issubclass(kind, BaseException)
    )
    try:
        text = str(error)[:200]
    except Exception:
        text = ""
    fields = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    if isinstance(error, (ImportError, AttributeError, NameError)):
        fields |= {name: value for name in _OWN_FIELDS if isinstance(value := getattr(error, name, None), str)}
    fields |= {name: value for name in _SPECIAL if (value := getattr(error, name, None)) is not None}
    return classes, _arguments(error), text, fields


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return error.message, error.exceptions
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename
    return tuple(
        arg if type(arg) in _PLAIN or isinstance(arg, BaseException) else repr(arg)[:200] for arg in error.args
    )


def made(classes: Sequence[tuple[str, str]], args: tuple[Any, ...], text: str) -> BaseException:
    """An exception that can be caught by any class of Python's own that the described one has. It has no fields yet."""
    known = [kind for module, name in classes if (kind := _known(module, name))]
    bases = [kind for kind in known if not any(issubclass(other, kind) and other is not kind for other in known)]
    if own := _known(*classes[0]):
        try:
            return own(*args)
        except Exception:  # its arguments did not cross
            bases = [own]
    try:
        kind = type(str(classes[0][1]).rpartition(".")[2], tuple(bases), {"__str__": lambda self: text})
        error = kind.__new__(kind, *args)
        error.args = args
        return error
    except Exception:  # classes that do not go together
        return RuntimeError(text)


def give_fields(error: BaseException, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if not name.startswith("_") or name in _SPECIAL:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, value)


def _known(module: str, name: str) -> type[BaseException] | None:
    """This process' class of this name, where a module of Python's own that it has loaded holds one."""
    if not is_pythons_own(module):
        return None
    found = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def is_pythons_own(module: str) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in {*sys.stdlib_module_names, "builtins", "numpy"}
