"""The judge's side of the wall: asks the prisoner, and stands in for objects that stay with it."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, BinaryIO

import raised  # type: ignore[import-not-found]
import shared  # type: ignore[import-not-found]
import wire  # type: ignore[import-not-found]

_BUILT_IN = ("builtins", "collections")
_LONGEST = 1 << 26  # bytes of one answer


class Silent(BaseException):
    """The prisoner is gone, or takes too long. No `except Exception` of a test hides it."""


class Solution:
    """The model's program in the other process."""

    def __init__(self, to: BinaryIO, back: BinaryIO, pid: int):
        self._to, self._back, self._pid = to, back, pid
        self._raised: list[BaseException] = []
        self.failure: BaseException | None = None  # the first `Silent` or `NotPlain`: nobody can hide it
        self._each: float = 0
        self._held: dict[int, Any] = {}  # by handle: one object of the prisoner's is one here
        self._kinds: dict[tuple[str, bool], type[Foreign]] = {}
        self._classes: dict[tuple[Any, ...], Any] = {}
        self._values: dict[int, Any] = {}  # by handle: immutable values of own subclasses
        self._streams: dict[int, Stream] = {}  # by handle, of iterators of own classes
        self._generators: dict[int, Any] = {}  # id of a generator → its stream
        self._shared = shared.Shared(self.outgoing)  # mutable objects that the prisoner holds, too
        self.is_reading = False  # an answer: a question would get the rest of it

    def limit_call(self, seconds: float) -> None:
        """How long one call may take from now on; 0 for no limit of its own."""
        self._each = seconds

    def named(self, name: str) -> Foreign:
        """What the program calls by this name."""
        return self._kind("function")(self, ["name", name], name, False, None)

    def ask(self, verb: str, *parts: Any) -> Any:
        """The prisoner's answer to one question; raises what its code raised, and the run's first failure for good."""
        if self.is_reading:
            raise TypeError("asked while an answer is read")
        if self.failure is None:
            try:
                return self._asked(verb, *parts)
            except (Silent, wire.NotPlain) as error:
                self.fail(error)
        assert self.failure is not None
        raise self.failure

    def fail(self, error: BaseException) -> BaseException:
        """The first failure, which is this one if there was none."""
        self.failure = self.failure or error
        return self.failure

    def _asked(self, verb: str, *parts: Any) -> Any:
        """One question and its reply: a line of the value, a line of what the prisoner still keeps (shared.py)."""
        changed = self._shared.changed()
        kept = self._shared.retained()
        line, new = wire.encode((tuple(kept), verb, *parts), self.outgoing, self._shared.objects, changed)
        try:
            self._to.write(line.encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            raise Silent(self._ending()) from None
        if self._each and not select.select([self._back], [], [], self._each)[0]:
            raise Silent(f"timed out: a call took more than {self._each:.3g} s")
        if not self._back.read(1):
            raise Silent(self._ending())
        self._shared.keep(kept)
        self._shared.add(new)
        self.is_reading = True
        try:
            (failed, value, printed), more, changed = wire.decode(self._line(), self._incoming, self._shared.objects)
            self._shared.add(more)
            self._shared.forget(changed)
            still = json.loads(self._line())
            if still is None:
                self._shared.end()
            self._shared.keep(still or [])
            self._shared.agree()
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            raise Silent("no reply: the answer's process wrote something else") from None
        finally:
            self.is_reading = False
        if printed and sys.stdout is not sys.__stdout__:  # a test reads it
            sys.stdout.write(str(printed))
        if failed and isinstance(value, BaseException):
            raise self.own(value)
        return value

    def _line(self) -> bytes:
        text = self._back.readline(_LONGEST)
        if not text.endswith(b"\n"):
            much = f"output: one answer of more than {_LONGEST} bytes"
            raise Silent(self._ending() if len(text) < _LONGEST else much)
        return text

    def own(self, error: BaseException) -> BaseException:
        """An exception that the answer raised, remembered as such."""
        self._raised.append(error)
        return error

    def is_of_the_answer(self, error: BaseException) -> bool:
        """Whether the model's code raised or made this, and not a test."""
        return raised.has_crossed(error) or any(own is error for own in self._raised)

    def reason(self, error: BaseException) -> str:
        """The kind of failure that an exception of the model's code is."""
        for kind, name in ((SyntaxError, "SyntaxError"), (ImportError, "missing module"), (MemoryError, "memory")):
            if isinstance(error, kind):
                return name
        return type(error).__name__

    def _ending(self) -> str:
        """How the prisoner ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code >= 0:
            return f"exited: with code {code}, before it answered"
        name = signal.Signals(-code).name
        if name == "SIGKILL":  # of the limit, or of a system that has no memory left
            return "timed out: out of processor time, or ended by the system for want of memory"
        return "timed out: out of processor time" if name == "SIGXCPU" else f"killed: by {name}"

    def _incoming(self, kind: str, *parts: Any) -> Any:
        if kind == "own class":
            return self._holding(*parts)
        if kind not in ("stream", "generator", "coroutine", "object", "own exception class"):
            raise ValueError("not a value of this wire")
        handle = parts[0]
        if handle not in self._held:
            self._held[handle] = self._standing_for(kind, *parts)
        elif kind == "object" and isinstance(parts[-1], int):
            object.__setattr__(self._held[handle], "_hash", parts[-1])
        return self._held[handle]

    def _standing_for(self, kind: str, handle: int, name: str = "", *more: Any) -> Any:
        if kind == "object":
            iterates, by_identity, hashed = more
            stand_in = self._kind(str(name), iterates is True)
            return stand_in(self, ["handle", handle], str(name), by_identity is True, hashed)
        if kind == "own exception class":
            made = raised.made_class(str(name), *more)
            made.asks, made.place = self.ask, ["handle", handle]
            return made
        if kind == "coroutine":
            return _awaiting(self, handle)
        stream = Stream(self, handle)
        if kind == "stream":
            return stream
        generator = _generating(stream)
        self._generators[id(generator)] = stream
        return generator

    def _holding(self, value: Any, stand_in: Foreign, names: Sequence[str]) -> Any:
        """A value of a built-in type with the answer's object of a subclass behind it, which has more names."""
        if (known := self._values.get(handle := stand_in._place[1])) is not None:
            return known
        key = (type(value), stand_in._kind, *names)
        if key not in self._classes:
            self._classes[key] = self._held_class(*key)
        kind = self._classes[key]
        base: Any = next(each for each in kind.__mro__ if isinstance(each, type) and each.__module__ in _BUILT_IN)
        if isinstance(value, (list, dict, set, bytearray, deque)):  # it is filled later
            made = base.__new__(kind)
            if isinstance(value, deque):
                deque.__init__(made, (), value.maxlen)
        else:
            made = self._values[handle] = base.__new__(kind, value)
        vars(made)["_stand_in"] = stand_in
        return made

    def _held_class(self, base: type, name: str, *names: str) -> wire.Held:
        """A subclass of a built-in type whose further names are asked for at the object behind a value.

        A special method that it has of its own is that of `Foreign`, but for those that would tell what is wanted:
        these stay the base's, and so do those that `Foreign` lacks.
        """

        def behind(own: Any) -> Foreign:
            found = vars(own).get("_stand_in")
            if found is None:
                raise self.fail(wire.NotPlain(f"an object that the tests make of the answer's class {name} is used"))
            if self._shared.is_spent and isinstance(own, (list, dict, set, bytearray, deque)):
                raise self.fail(wire.NotPlain(f"the answer's {name} is used after {shared.BOUND} were compared"))
            return found

        def has(own: Any, asked: str) -> Any:
            if asked in names:
                return getattr(behind(own), asked)
            raise AttributeError(f"{type(own).__name__!r} object has no attribute {asked!r}", name=asked, obj=own)

        def special(method: str) -> Any:
            return lambda own, *args: getattr(Foreign, method)(behind(own), *args)

        def attribute(of: str) -> property:
            return property(lambda own: getattr(behind(own), of))

        space: dict[str, Any] = {"__getattr__": has, "__setattr__": lambda own, *args: setattr(behind(own), *args)}
        space |= {each: special(each) for each in ("__copy__", "__deepcopy__")}
        if base.__hash__ is None:
            space["__hash__"] = object.__hash__  # one that can be hashed there can be a key here
        for each in ("__getitem__" if each == "__missing__" else each for each in names):
            if not each.startswith("__"):
                if hasattr(base, each):
                    space[each] = attribute(each)
            elif each in vars(Foreign) and each not in wire.NO_BEHAVIOUR | _TELLING:
                space[each] = special(each)
        return wire.Held(name if name.isidentifier() else "object", (base,), space)

    def _kind(self, name: str, iterates: bool = False) -> type[Foreign]:
        """The class by whose name objects of the answer's class go here."""
        name = name if name.isidentifier() else "object"
        if (name, iterates) not in self._kinds:
            doc = property(lambda own: self.ask("get", own, "__doc__"))
            own = {"__next__": _next} if iterates else {}
            self._kinds[name, iterates] = type(name, (Foreign,), {"__slots__": (), "__doc__": doc, **own})
        return self._kinds[name, iterates]

    def outgoing(self, value: Any) -> list[Any]:
        """What is no plain value, on its way to the prisoner: its own objects, and functions of Python's own."""
        value = self._generators.get(id(value), value)
        if isinstance(value, (Foreign, Stream)):
            return list(value._place)
        if isinstance(value, raised.Own) and "place" in vars(value):
            return list(value.place)
        if isinstance(value, type) and issubclass(value, BaseException):
            return []  # the tests' own: one like it is made there
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(module, str) and isinstance(name, str) and raised.is_pythons_own(module):
            found: Any = sys.modules.get(module)
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is value:
                return ["known", module, name]
        raise wire.NotPlain(f"the tests' object of class {type(value).__name__} is an argument")


class Foreign:
    """An object that stays in the other process: its truth, calls, attributes, items and text are asked for there.

    It is never compared there, nor divided by or taken from a value of the tests: the other side would learn what is
    wanted, and could answer 0. An object whose class compares by identity is unequal to every other one; of any other
    nothing can be said.
    """

    __slots__ = ("_by_identity", "_hash", "_kind", "_place", "_solution")

    def __init__(self, solution: Solution, place: list[Any], kind: str, by_identity: bool, hashed: int | None):
        for name, value in zip(Foreign.__slots__, (by_identity, hashed, kind, place, solution), strict=True):
            object.__setattr__(self, name, value)

    def __call__(self, /, *args: Any, **named: Any) -> Any:
        return self._solution.ask("call", self, args, tuple(named.items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _TOLD:
            raise AttributeError(name)  # numpy would take an address in memory from `__array_interface__`
        return self._solution.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._solution.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._solution.ask("operate", "delattr", self, name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Foreign) and self._place == other._place:
            return True
        if self._by_identity and (not isinstance(other, Foreign) or other._by_identity):
            return False
        raise self._not("compared")

    def __hash__(self) -> int:
        if self._by_identity:
            return hash(tuple(self._place))
        if self._solution.is_reading and isinstance(self._hash, int):  # it is an item of a set or a key of a dictionary
            return self._hash
        return self._solution.ask("operate", "hash", self)

    def __copy__(self) -> Any:
        return self._solution.ask("operate", "copy", self)

    def __deepcopy__(self, known: Any) -> Any:
        return self._solution.ask("operate", "deepcopy", self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self._not("pickled")

    def __mro_entries__(self, bases: Any) -> Any:
        raise self._not("a base of a class of the tests")

    def _unordered(self, other: object) -> bool:
        raise self._not("compared")

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, Foreign):
            return self._solution.ask("operate", "contains", self, value)
        try:
            items = self._solution.ask("iterate", self)
        except TypeError:
            raise self._not("asked whether it holds a value") from None
        return any(each is value or each == value for each in items)

    def __iter__(self) -> Any:
        found = self._solution.ask("iterate", self)  # an iterator gives itself
        return found if hasattr(type(found), "__next__") else iter(found)

    def __instancecheck__(self, value: Any) -> bool:
        if isinstance(type(value), wire.Held):
            value = vars(value)["_stand_in"]
        if not isinstance(value, Foreign):
            raise self._not(f"asked whether a plain {type(value).__name__} is of it")
        return self._solution.ask("operate", "isinstance", value, self)

    def __enter__(self) -> Any:
        return self._solution.ask("operate", "enter", self)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        return bool(self._solution.ask("operate", "exit", self, error))

    def __repr__(self) -> str:
        return self._solution.ask("operate", "repr", self)

    def __str__(self) -> str:
        return self._solution.ask("operate", "str", self)

    def __format__(self, spec: str) -> str:
        return self._solution.ask("operate", "format", self, spec)

    def __round__(self, digits: int | None = None) -> Any:
        return self._solution.ask("operate", "round", self, *([] if digits is None else [digits]))

    def _not(self, done: str) -> BaseException:
        return self._solution.fail(wire.NotPlain(f"the answer's object of class {self._kind} is {done}"))

    def _unasked(self, *args: Any) -> Any:
        raise self._not("awaited or read asynchronously")

    __await__ = __aiter__ = __anext__ = __aenter__ = __aexit__ = _unasked


# What of an object's own description is asked for by name.
_TOLD = ("__name__", "__qualname__", "__doc__", "__dict__", "__annotations__", "__defaults__", "__wrapped__")
_ALONE = (
    "bool",
    "len",
    "int",
    "float",
    "complex",
    "index",
    "neg",
    "pos",
    "invert",
    "abs",
    "reversed",
    "trunc",
    "floor",
    "ceil",
)
_ANY_OPERAND = (
    "getitem",
    "setitem",
    "delitem",
    "add",
    "mul",
    "matmul",
    "lshift",
    "rshift",
    "iadd",
    "imul",
)
# `f(x) - 5` tells what is wanted, and so does `f(x) & {5}`.
_OWN_OPERAND = ("sub", "truediv", "floordiv", "mod", "pow", "xor", "and_", "or_", "divmod", "isub")


# Special methods of subclasses of built-in types that stay the base's: they would be given what is wanted.
_TELLING = {"__contains__", "__lt__", "__le__", "__gt__", "__ge__"} | {
    f"__{reverse}{name.rstrip('_')}__" for name in _OWN_OPERAND for reverse in ("", "r")
}


def _asking(name: str, reverse: bool = False, only_own: bool = False) -> Any:
    def asked(self: Foreign, *others: Any) -> Any:
        if only_own and not all(isinstance(other, Foreign) for other in others):
            raise self._not("computed with a value of the tests")
        return self._solution.ask("operate", name, *([*others, self] if reverse else [self, *others]))

    return asked


for _name in _ALONE:
    setattr(Foreign, f"__{_name}__", _asking(_name))
for _name in (*_ANY_OPERAND, *_OWN_OPERAND):
    _special = _name.rstrip("_")
    setattr(Foreign, f"__{_special}__", _asking(_name, only_own=_name in _OWN_OPERAND))
    if not _special.endswith("item") and _special not in ("iadd", "imul", "isub"):
        setattr(Foreign, f"__r{_special}__", _asking(_name, reverse=True, only_own=_name in _OWN_OPERAND))


class Stream:
    """An iterator of the other process. More items cross at once the longer it is read."""

    def __init__(self, solution: Solution, handle: int):
        self._solution, self._place = solution, ["handle", handle]
        self._items: list[Any] = []
        self._ended: BaseException | None = None
        self._read = 0

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if not self._items:
            if self._ended is not None:
                raise self._solution.own(self._ended)
            items, self._ended = self._solution.ask("next", self, 1 if self._read < _ONE_BY_ONE else self._read)
            self._items = list(reversed(items))
            self._read += max(len(items), 1)
            return next(self)
        return self._items.pop()

    def __length_hint__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._solution.ask("get", self, name)

    def ahead(self, verb: str, *args: Any) -> Any:
        """A generator's `send`, `throw` or `close`."""
        if verb == "close":  # Python closes one that nobody refers to any more, read ahead or not
            self._items = []
        if self._items:
            said = f"the answer's generator is told to {verb} after {self._read} items were read ahead"
            raise self._solution.fail(wire.NotPlain(said))
        return self._solution.ask("operate", verb, self, *args)


_ONE_BY_ONE = 1024  # items that cross alone, so that an iterator does nothing that was not asked for


def _generating(stream: Stream) -> Any:
    """A generator of this process that drives one of the other."""
    step: tuple[Any, ...] = ()
    while True:
        try:
            item = stream.ahead(*step) if step else next(stream)
        except StopIteration as ended:
            return ended.value
        try:
            value = yield item
        except GeneratorExit:
            stream.ahead("close")
            raise
        except BaseException as error:
            step = ("throw", error)
        else:
            step = () if value is None else ("send", value)


def _next(own: Foreign) -> Any:
    """An item of an iterator whose class is the answer's own."""
    place = own._place[1]
    streams = own._solution._streams
    if place not in streams:
        streams[place] = Stream(own._solution, place)
    return next(streams[place])


async def _awaiting(solution: Solution, handle: int) -> Any:
    return solution.ask("operate", "await", Stream(solution, handle))
