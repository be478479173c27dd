"""Exceptions as they cross between an answer and its tests: by their classes of Python's own, arguments and fields."""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
from collections.abc import Mapping
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset, range)
_OWN_FIELDS = ("name", "path")  # of ImportError, AttributeError and NameError, which do not stand among the arguments
_SPECIAL = ("__cause__", "__notes__")


def classes(kind: type[BaseException]) -> tuple[tuple[str, str], ...]:
    """An exception's classes by module and name, from its own to `BaseException`."""
    return tuple((each.__module__, each.__qualname__) for each in kind.__mro__ if issubclass(each, BaseException))


def described(error: BaseException) -> tuple[Any, ...]:
    """Classes, arguments, text, fields."""
    if isinstance(error, SyntaxError):
        error.args = (f"{error.msg} (line {error.lineno})",)
        error.msg, error.lineno, error.filename = error.args[0], None, None
    try:
        text = str(error)[:200]
    except Exception:
        text = ""
    fields = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    if isinstance(error, (ImportError, AttributeError, NameError)):
        fields |= {name: value for name in _OWN_FIELDS if isinstance(value := getattr(error, name, None), str)}
    fields |= {name: value for name in _SPECIAL if (value := getattr(error, name, None)) is not None}
    return classes(type(error)), _arguments(error), text, fields


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return error.message, error.exceptions
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename
    return tuple(
        arg if type(arg) in _PLAIN or isinstance(arg, BaseException) else repr(arg)[:200] for arg in error.args
    )


@functools.cache
def made_class(described: tuple[tuple[str, str], ...]) -> type[BaseException]:
    """The class that is described, if it is Python's own, else one like it: with all bases that are Python's own."""
    known = [kind for module, name in described if (kind := _known(module, name))]
    if own := _known(*described[0]):
        return own
    bases = [kind for kind in known if not any(issubclass(other, kind) and other is not kind for other in known)]
    name = str(described[0][1]).rpartition(".")[2]
    try:
        return type(name, tuple(bases), {"__str__": lambda self: self._text})
    except TypeError:  # classes that do not go together
        return type(name, (RuntimeError,), {"__str__": lambda self: self._text})


def made(described: tuple[tuple[str, str], ...], args: tuple[Any, ...], text: str) -> BaseException:
    """An exception that can be caught by any class of Python's own that the described one has. It has no fields yet."""
    kind: Any = made_class(described)
    if _known(*described[0]):
        try:
            return kind(*args)
        except Exception:  # its arguments did not cross
            kind = type(kind.__name__, (kind,), {"__str__": lambda self: self._text})
    try:
        error = kind.__new__(kind, *args)
    except Exception:  # it cannot be made of what its class says
        return RuntimeError(text)
    error.args, error._text = args, text
    return error


def give_fields(error: BaseException, fields: Mapping[str, Any]) -> None:
    """Sets what `described` said of an exception's fields."""
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


def is_known(kind: type[BaseException]) -> bool:
    """Whether the other process has this class by its name."""
    return _known(kind.__module__, kind.__qualname__) is kind


def is_pythons_own(module: str) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in {*sys.stdlib_module_names, "builtins", "numpy"}
