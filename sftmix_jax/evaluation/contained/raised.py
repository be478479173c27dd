"""Exceptions as they cross between an answer and its tests: by their classes of Python's own, arguments and fields."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

_LONGEST_TEXT = 1 << 16
_PLAIN = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset, range)
_OWN_FIELDS = ("name", "path")  # of ImportError, AttributeError and NameError, which do not stand among the arguments
_SPECIAL = ("__cause__", "__notes__")


class Own(type):
    """The class of exception classes that are the other side's own: calls and attributes are asked for there."""

    asks: Any = None  # of a class that has crossed by itself: (verb, class, *parts) → the answer
    place: Any = None  # where it is there

    def __call__(cls, *args: Any, **named: Any) -> Any:
        if "asks" in vars(cls):  # a class of the tests that has this one as its base is made here
            return cls.asks("call", cls, args, tuple(named.items()))
        return super().__call__(*args, **named)

    def __getattr__(cls, name: str) -> Any:
        if "asks" not in vars(cls) or name.startswith("__"):
            raise AttributeError(name)
        return cls.asks("get", cls, name)


def described(error: BaseException) -> tuple[Any, ...]:
    """Class, arguments, text, fields."""
    if isinstance(error, SyntaxError):
        error.args = (f"{error.msg} (line {error.lineno})",)
        error.msg, error.lineno, error.filename = error.args[0], None, None
    try:
        text: str | None = str(error)[:_LONGEST_TEXT]
    except Exception:
        text = None
    own = [vars(kind) for kind in reversed(type(error).__mro__) if not is_pythons_own_class(kind)]
    fields = {name: value for each in own for name, value in each.items() if type(value) in _PLAIN} | vars(error)
    fields = {name: value for name, value in fields.items() if not name.startswith("_")}
    if isinstance(error, (ImportError, AttributeError, NameError)):
        fields |= {name: value for name in _OWN_FIELDS if isinstance(value := getattr(error, name, None), str)}
    fields |= {name: value for name in _SPECIAL if (value := getattr(error, name, None)) is not None}
    return type(error), _arguments(error), text, fields


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return error.message, error.exceptions
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename
    return error.args


def pythons_own(module: str, name: str) -> type[BaseException] | None:
    """This process' class of this name, where a module of Python's own that it has loaded holds one."""
    if not is_pythons_own(module):
        return None
    found = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def is_pythons_own_class(kind: type[BaseException]) -> bool:
    """Whether the other process has this class by its name."""
    return pythons_own(getattr(kind, "__module__", ""), kind.__qualname__) is kind


def bases(kind: type[BaseException]) -> tuple[type[BaseException], ...]:
    """Those of a class's bases that are exceptions, too: the others stay where they are."""
    return tuple(base for base in kind.__bases__ if issubclass(base, BaseException))


def _as_there(error: BaseException) -> str:
    """The text that the other side gave it; None where it has none there."""
    text = vars(error).get("_text")
    return BaseException.__str__(error) if text is None else text


def _asked_for(error: BaseException, name: str) -> Any:
    stand_in = vars(error).get("_stand_in")
    if stand_in is None or name.startswith("_"):
        raise AttributeError(f"{type(error).__name__!r} object has no attribute {name!r}", name=name, obj=error)
    return getattr(stand_in, name)


def has_crossed(error: BaseException) -> bool:
    """Whether an exception was made here of what the other side described."""
    return "_text" in vars(error)


def made_class(name: str, bases: tuple[type[BaseException], ...]) -> Own:
    """A class that is caught as one of these is."""
    space = {"__str__": _as_there, "__getattr__": _asked_for}
    try:
        if all(issubclass(base, BaseException) for base in bases):
            return Own(name, bases or (Exception,), space)
    except TypeError:  # classes that do not go together
        pass
    return Own(name, (RuntimeError,), space)


def made(kind: Any, args: tuple[Any, ...], text: str | None, stand_in: Any = None) -> BaseException:
    """An exception of a class, as the other side has described it. It has no fields yet.

    `stand_in` is asked for what the other side's own class has more.
    """
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise ValueError("not a class of exceptions")
    try:
        error = kind(*args) if is_pythons_own_class(kind) else _without_init(kind, args)
    except Exception:  # it cannot be made of these arguments
        try:
            error = _without_init(made_class(kind.__name__, (kind,)), args)
        except Exception:
            error = RuntimeError(text)
    error._text = text  # type: ignore[attr-defined]
    if stand_in is not None:
        error._stand_in = stand_in  # type: ignore[attr-defined]
    return error


def _without_init(kind: Any, args: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def give_fields(error: BaseException, fields: Mapping[str, Any]) -> None:
    """Sets what `described` said of an exception's fields."""
    for name, value in fields.items():
        if not name.startswith("_") or name in _SPECIAL:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, value)


def is_pythons_own(module: str) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in {*sys.stdlib_module_names, "builtins", "numpy"}
