"""The judge's side of the wall: asks the prisoner, and stands in for objects that stay with it."""

from __future__ import annotations

import builtins
import os
import select
import signal
import sys
from typing import Any, BinaryIO

import wire  # type: ignore[import-not-found]

_LONGEST = 1 << 26  # bytes of one answer


class Silent(BaseException):
    """The prisoner is gone, or takes too long. No `except Exception` of a test hides it."""


class Solution:
    """The model's program in the other process."""

    def __init__(self, to: BinaryIO, back: BinaryIO, pid: int):
        self._to, self._back, self._pid = to, back, pid
        self._raised: list[tuple[BaseException, str]] = []
        self._each: float = 0

    def limit_call(self, seconds: float) -> None:
        """How long one call may take from now on; 0 for no limit of its own."""
        self._each = seconds

    def named(self, name: str) -> Foreign:
        """What the program calls by this name."""
        return Foreign(self, ["name", name], name, True, False)

    def ask(self, verb: str, *parts: Any) -> Any:
        """The prisoner's answer to one question; raises what its code raised."""
        line, mutable = wire.encode((verb, *parts), _outgoing)
        try:
            self._to.write(line.encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            raise Silent(self._ending()) from None
        if self._each and not select.select([self._back], [], [], self._each)[0]:
            raise Silent(f"timed out: a call took more than {self._each:.3g} s")
        text = self._back.readline(_LONGEST)
        if not text.endswith(b"\n"):
            much = f"output: one answer of more than {_LONGEST} bytes"
            raise Silent(self._ending() if len(text) < _LONGEST else much)
        try:
            (kind, *rest), _ = wire.decode(text, self._incoming, mutable)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise Silent("no reply: the answer's process wrote something else") from None
        if kind == "error":
            raise self.exception(*rest)
        return rest[0]

    def exception(self, classes: list[tuple[str, str]], args: tuple[Any, ...], text: str) -> BaseException:
        """An exception that tests can catch by any class of Python's own that it has."""
        known = [kind for module, name in classes if (kind := _known_exception(module, name))]
        bases = [kind for kind in known if not any(issubclass(other, kind) and other is not kind for other in known)]
        name = str(classes[0][1]).rpartition(".")[2]
        error = _exception(known[0] if _known_exception(*classes[0]) else None, bases, name, args, text)
        self._raised.append((error, name))
        return error

    def raised(self, error: BaseException) -> bool:
        """Whether the model's code raised this, and not a test."""
        return any(own is error for own, _ in self._raised)

    def reason(self, error: BaseException) -> str:
        """The kind of failure that an exception of the model's code is."""
        for kind, name in ((SyntaxError, "SyntaxError"), (ImportError, "missing module"), (MemoryError, "memory")):
            if isinstance(error, kind):
                return name
        return next(str(name) for own, name in self._raised if own is error)

    def _ending(self) -> str:
        """How the prisoner ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code >= 0:
            return f"exited: with code {code}, before it answered"
        name = signal.Signals(-code).name
        return "timed out: out of processor time" if name in ("SIGXCPU", "SIGKILL") else f"killed: by {name}"

    def _incoming(self, kind: str, *parts: Any) -> Any:
        if kind == "stream":
            return Stream(self, parts[0])
        if kind != "object":
            raise ValueError("not a value of this wire")
        handle, name, truth, by_identity = parts
        return Foreign(self, ["handle", handle], str(name), truth, by_identity is True)


class Foreign:
    """An object that stays in the other process: its truth, its calls, attributes and items are asked for there.

    It is never compared there: the other side would learn what is wanted. An object whose class compares by identity
    is unequal to every plain value; of any other nothing can be said.
    """

    __slots__ = ("_by_identity", "_kind", "_place", "_solution", "_truth")

    def __init__(self, solution: Solution, place: list[Any], kind: str, truth: bool | None, by_identity: bool):
        for name, value in zip(self.__slots__, (by_identity, kind, place, solution, truth), strict=True):
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._solution.ask("call", self, args, tuple(named.items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy would take an address in memory from `__array_interface__`
            raise AttributeError(name)
        return self._solution.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._solution.ask("set", self, name, value)

    def __bool__(self) -> bool:
        if not isinstance(self._truth, bool):
            raise wire.NotPlain(f"{self!r} has no truth value")
        return self._truth

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Foreign):
            return self._place == other._place
        if self._by_identity:
            return False
        raise wire.NotPlain(f"{self!r} is compared")

    def __hash__(self) -> int:
        return hash(tuple(self._place))

    def _unordered(self, other: object) -> bool:
        raise wire.NotPlain(f"{self!r} is compared")

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __iter__(self) -> Any:
        return iter(self._solution.ask("iterate", self))

    def __len__(self) -> int:
        return self._solution.ask("length", self)

    def __getitem__(self, key: Any) -> Any:
        return self._solution.ask("item", self, key)

    def __str__(self) -> str:
        return self._solution.ask("text", self)

    def __repr__(self) -> str:
        return f"the answer's object of class {self._kind}"


class Stream:
    """An iterator of the other process. More items cross at once the longer it is read."""

    def __init__(self, solution: Solution, handle: int):
        self._solution, self._place = solution, ["handle", handle]
        self._items: list[Any] = []
        self._ended: tuple[Any, ...] | None = None
        self._most = 1

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if not self._items:
            if self._ended is not None:
                raise self._solution.exception(*self._ended)
            items, self._ended = self._solution.ask("next", self, self._most)
            self._items, self._most = list(reversed(items)), 2 * self._most
            return next(self)
        return self._items.pop()


def _exception(
    own: type[BaseException] | None, bases: list[type[BaseException]], name: str, args: tuple[Any, ...], text: str
) -> BaseException:
    if own is not None:
        try:
            return own(*args)
        except Exception:  # its arguments did not cross
            bases = [own]
    try:
        kind = type(name, tuple(bases), {"__str__": lambda self: text})
        error = kind.__new__(kind, *args)
        error.args = args
        return error
    except Exception:  # classes that do not go together
        return RuntimeError(text)


def _outgoing(value: Any) -> list[Any]:
    """What is no plain value, on its way to the prisoner: its own objects, and functions of Python's own."""
    if isinstance(value, (Foreign, Stream)):
        return list(value._place)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and _is_pythons_own(module):
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return ["known", module, name]
    raise wire.NotPlain(f"the tests' object of class {type(value).__name__} is an argument")


def _known_exception(module: str, name: str) -> type[BaseException] | None:
    """The judge's own class of this name, where a module of Python's own that it has loaded holds one."""
    if not _is_pythons_own(module):
        return None
    found = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _is_pythons_own(module: str) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in {*sys.stdlib_module_names, "builtins", "numpy"}
