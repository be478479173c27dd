"""Values as JSON and back: the only thing that crosses the wall between an answer and its tests.

A text is `[root, nodes, changes, classes]`. None, booleans, text and numbers stand inline. Everything else is a node of
the table, `[i]`, so that objects keep their identity within one message, cycles included. `[-1 - i]` is the i-th
mutable object that both sides know already (contained/shared.py); `changes` holds the contents of those that have
changed.

Values of the answer's own subclasses of built-in types arrive with the value of their base: an `__eq__` of the model's
own never meets a test. `classes` names the object behind each, which is asked for what the subclass adds. Exceptions
are described (contained/raised.py). What has no plain form is handed to `foreign`, which describes it by a node of its
own.
"""

from __future__ import annotations

import base64
import builtins
import functools
import json
import marshal
import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import prod
from time import struct_time
from typing import Any

import raised  # type: ignore[import-not-found]  # beside this file

Foreign = Callable[..., Any]
State = str | bytes
_INLINE = frozenset({type(None), bool, float})
_SCALARS = _INLINE | {str, int, bytes, complex}
_PLAIN_MARSHAL = 2  # its version: later ones tell what else refers to a value
_LONG = 1 << 8192  # integers from here on cross as hexadecimal text: Python limits the digits of decimal text
_MOST_HELD = 4096  # values of own subclasses in a message that have an object behind them; the others are as their base
_DEEP = 100_000  # nested values are encoded by recursion, some frames for each level
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_FACTORIES = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, set, dict)}
# Built-in types whose subclasses keep what they add; the first of a class's ancestors counts.
_SUBCLASSED = (
    *(int, float, complex, str, bytes, tuple, frozenset),
    *(list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict),
)
# What says nothing of how an object behaves, or must not: two values are compared by their base.
NO_BEHAVIOUR = frozenset(
    """
    __module__ __doc__ __dict__ __weakref__ __slots__ __qualname__ __annotations__ __orig_bases__ __new__ __init__
    __init_subclass__ __class_getitem__ __parameters__ __match_args__ __del__ __eq__ __ne__ __hash__ __sizeof__
    __dir__ __getattr__ __getattribute__ __setattr__ __delattr__ __reduce__ __reduce_ex__ __getnewargs__
    __getnewargs_ex__ __getstate__ __setstate__ __copy__ __deepcopy__ __replace__ __static_attributes__
    __firstlineno__ _field_defaults _fields __annotate__ __annotate_func__ __annotations_cache__
    __conditional_annotations__
    """.split()
)
# Python's own classes, and two constants that stand for themselves.
_CONSTANTS: dict[str, Any] = {
    **{name: value for name, value in vars(builtins).items() if isinstance(value, type)},
    **{repr(value): value for value in (..., NotImplemented)},
}
_NAMES = {id(value): name for name, value in _CONSTANTS.items()}
_ARRAYS = frozenset("biufcSUMm")  # kinds of numpy's data types whose bytes are their value


class NotPlain(BaseException):
    """A value cannot cross. No `except Exception` of a test hides it."""


class Held(type):
    """The class of the tests' classes whose values have an object of the answer's, their `_stand_in`, behind them."""


def encode(
    value: Any, foreign: Foreign, both: Sequence[Any] = (), changed: Iterable[int] = (), *, classes: bool = False
) -> tuple[str, list[Any]]:
    """→ the text, and the mutable objects in it that are new to the other side.

    `both` are the mutable objects that both sides have; of those in `changed` the contents are sent. `classes` tells
    what of a subclass of a built-in type is its own.
    """
    encoder = _Encoder(foreign, {id(own): [-1 - i] for i, own in enumerate(both)}, [] if classes else None)
    with _Recursion():
        root = encoder.child(value)
        changes = [[i, *encoder.contents(both[i])] for i in changed]
        encoder.finish()
    return json.dumps([root, encoder.nodes, changes, encoder.classes or []]), encoder.mutable


def by_identity(objects: Sequence[Any]) -> dict[int, list[int]]:
    """How the objects stand in states."""
    return {id(own): [id(own)] for own in objects}


def state(own: Any, foreign: Foreign, places: Mapping[int, list[int]]) -> State:
    """What a mutable object holds, to compare with; the objects of `places` within it by what they are."""
    if type(own) in (list, set) and _SCALARS.issuperset(map(type, own)):
        return marshal.dumps(own, _PLAIN_MARSHAL)
    if type(own) is dict and _SCALARS.issuperset(map(type, own)) and _SCALARS.issuperset(map(type, own.values())):
        return marshal.dumps(own, _PLAIN_MARSHAL)
    if not isinstance(own, (list, dict, set, bytearray, deque)) and own.dtype.kind in _ARRAYS:
        return repr((own.dtype.str, own.shape)).encode() + own.tobytes()
    with _Recursion():
        encoder = _Encoder(foreign, places)
        contents = encoder.contents(own)
        encoder.finish()
    return json.dumps([contents, encoder.nodes])


def decode(text: str | bytes, foreign: Foreign, both: Sequence[Any] = ()) -> tuple[Any, list[Any], list[int]]:
    """→ the value, the new mutable objects in it in the order in which `encode` gave them, and the places that changed.

    The objects of `both` get the contents that were sent. Sets and dictionaries hash what they hold: an object of the
    other side's must know its hash without a question, as the rest of this message has not been read yet.
    """
    root, nodes, changes, classes = json.loads(text)
    own_classes = {i: (nodes[stand_in], names) for i, stand_in, names in classes}
    made: list[Any] = [None] * len(nodes)
    waiting = []

    def child(given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return made[given[0]] if given[0] >= 0 else both[-1 - given[0]]

    def held(i: int, value: Any) -> Any:
        if i not in own_classes:
            return value
        described, names = own_classes[i]
        return foreign("own class", value, foreign(*described), names)

    for i, (kind, *parts) in enumerate(nodes):
        if kind in _EMPTY:
            made[i] = held(i, _EMPTY[kind](*parts[1:]))
            waiting.append((made[i], parts[0]))
    fields = []
    for i, (kind, *parts) in enumerate(nodes):
        if kind == "exception":
            made[i] = raised.made(*map(child, [*parts[:3], *parts[4:]]))
            fields.append((made[i], child(parts[3])))
        elif kind not in _EMPTY:
            made[i] = held(i, _whole(kind, parts, child, foreign))
    for own, content in waiting:
        _fill(own, content, child)
    for i, _, content, *_ in changes:
        _fill(both[i], content, child)
    for error, filled in fields:
        raised.give_fields(error, filled)
    return child(root), [own for own, _ in waiting], [change[0] for change in changes]


class _Recursion:
    def __enter__(self) -> None:
        self._limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(self._limit, _DEEP))

    def __exit__(self, *error: object) -> None:
        sys.setrecursionlimit(self._limit)


class _Encoder:
    def __init__(self, foreign: Foreign, both: Mapping[int, list[int]], classes: list[Any] | None = None):
        self.classes = classes
        self.nodes: list[Any] = []
        self.mutable: list[Any] = []
        self._foreign = foreign
        self._both = both  # id of an object → its place, of those that both sides have
        self._places: dict[int, list[int]] = {}
        self._kept: list[Any] = []  # an object's id is its own only while it lives
        self._waiting: list[tuple[int, Any]] = []

    def child(self, value: Any) -> Any:
        kind = type(value)
        if kind in _INLINE or (kind is str and _is_whole(value)) or (kind is int and -_LONG < value < _LONG):
            return value
        return self._places.get(id(value)) or self._both.get(id(value)) or self._node(value)

    def hashed(self, value: Any) -> Any:
        """A child that the other side will hash: an object that stays here says its hash with it."""
        child = self.child(value)
        if isinstance(value, (tuple, frozenset)):
            for item in tuple.__iter__(value) if isinstance(value, tuple) else frozenset.__iter__(value):
                self.hashed(item)
        elif isinstance(child, list) and child[0] >= 0 and (node := self.nodes[child[0]]) and node[0] == "object":
            node[-1] = hash(value)
        return child

    def children(self, values: Iterable[Any]) -> list[Any]:
        return [value if type(value) in _INLINE else self.child(value) for value in values]

    def finish(self) -> None:
        """Mutable objects are filled last: whatever they hold may hold them."""
        while self._waiting:
            i, value = self._waiting.pop()
            self.nodes[i] = self.contents(value)

    def _node(self, value: Any) -> Any:
        self._kept.append(value)
        names = () if self.classes is None or len(self.classes) >= _MOST_HELD else _added(value)
        if isinstance(type(value), Held) and "_stand_in" in vars(value):
            plain = self._foreign(vars(value)["_stand_in"])
        elif _is_mutable(value):
            plain = None
            self._waiting.append((len(self.nodes), value))
            self.mutable.append(value)
        else:
            plain = self._plain(value)
            if names and not isinstance(plain, list):
                plain = [type(plain).__name__, _in_a_node(plain)]
            if plain is not None and not isinstance(plain, list):
                return plain
        place = self._places[id(value)] = [len(self.nodes)]
        self.nodes.append(plain)
        if names and self.classes is not None:
            self.classes.append([place[0], len(self.nodes), names])
            self.nodes.append(self._foreign(value))
        return place

    def contents(self, value: Any) -> list[Any]:
        """A mutable object's node: kind, content, and what it is made with before it is filled."""
        if isinstance(value, dict):
            pairs = [[self.hashed(key), self.child(item)] for key, item in _dict(value).items(value)]
            if isinstance(value, defaultdict):
                factory = value.default_factory
                # asked of no object that is not here: its name would be one more question
                name = next((name for name, kind in _FACTORIES.items() if kind is factory), "")
                return ["defaultdict", [pairs, name, self.child(factory if not name else None)]]
            kinds = (Counter, OrderedDict)
            return [next((kind.__name__ for kind in kinds if isinstance(value, kind)), "dict"), pairs]
        if isinstance(value, deque):
            return ["deque", self.children(deque.__iter__(value)), value.maxlen]
        if isinstance(value, bytearray):
            return ["bytearray", bytes(value).decode("latin-1")]
        if isinstance(value, list):
            return ["list", self.children(list.__iter__(value))]
        if isinstance(value, set):
            return ["set", list(map(self.hashed, set.__iter__(value)))]
        array = sys.modules["numpy"].asarray(value)
        if array.dtype.kind in _ARRAYS:
            data = base64.b64encode(array.tobytes()).decode()
            return ["array", data, array.dtype.str, array.shape]
        return ["array", self.children(array.ravel().tolist()), "O", array.shape]

    def _plain(self, value: Any) -> Any:
        """An immutable value's node, or the value itself where it stands inline."""
        if isinstance(value, numpy.generic if (numpy := sys.modules.get("numpy")) else ()):  # before float, its base
            if value.dtype.kind in "SU":  # numpy leaves zeros out at the end of what it reads
                text = str.__str__(value) if isinstance(value, str) else b"".join([value])
                return ["text scalar", value.dtype.kind, self.child(text)]
            if value.dtype.kind in _ARRAYS:
                return ["scalar", base64.b64encode(value.tobytes()).decode(), value.dtype.str]
            return self._foreign(value)
        if isinstance(value, int):
            whole = int.__int__(value)
            return whole if -_LONG < whole < _LONG else ["int", _in_a_node(whole)]
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, str):
            plain = str.__str__(value)
            return plain if _is_whole(plain) else ["str", _in_a_node(plain)]
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, bytes):
            return ["bytes", value.decode("latin-1")]
        if id(value) in _NAMES:
            return ["constant", _NAMES[id(value)]]
        if isinstance(value, type) and issubclass(value, BaseException):
            return self._exception_class(value)
        if isinstance(value, BaseException):
            return self._exception(value)
        if type(value) is struct_time:
            return ["struct_time", self.children(value)]
        if isinstance(value, tuple):
            items = self.children(tuple.__iter__(value))
            fields = getattr(type(value), "_fields", None)
            if isinstance(fields, tuple) and len(fields) == len(items) and all(isinstance(f, str) for f in fields):
                return ["named", items, type(value).__name__, list(fields)]
            return ["tuple", items]
        if isinstance(value, frozenset):
            return ["frozenset", list(map(self.hashed, frozenset.__iter__(value)))]
        if isinstance(value, range | slice):
            return [type(value).__name__, self.children((value.start, value.stop, value.step))]
        if isinstance(value, Fraction):
            return ["fraction", self.children((value.numerator, value.denominator))]
        if isinstance(value, Decimal):
            return ["decimal", Decimal.__str__(value)]
        if isinstance(value, timedelta):
            return ["timedelta", [value.days, value.seconds, value.microseconds]]
        if isinstance(value, (date, time)) and (zone := _zone(value)) is not None:
            base: Any = next(kind for kind in (datetime, date, time) if isinstance(value, kind))
            clock: Any = value if base is date else value.replace(tzinfo=None)  # type: ignore[call-arg]
            return [base.__name__, base.isoformat(clock), zone]
        if isinstance(value, _VIEWS):
            viewed: Any = value
            if isinstance(value, _VIEWS[2]):
                items = [[self.hashed(key), self.child(item)] for key, item in viewed]
            else:
                items = [(self.hashed if isinstance(value, _VIEWS[0]) else self.child)(item) for item in viewed]
            names = zip(("keys", "values", "items"), _VIEWS, strict=True)
            return [next(name for name, kind in names if isinstance(value, kind)), items]
        return self._foreign(value)

    def _exception(self, error: BaseException) -> list[Any]:
        """One of a class of the answer's own has an object behind it, which is asked for its methods."""
        if (stand_in := vars(error).get("_stand_in")) is not None:
            return self._foreign(stand_in)
        node = ["exception", *self.children(raised.described(error))]
        if self.classes is not None and not raised.is_pythons_own_class(type(error)):
            node.append([len(self.nodes)])
            self.nodes.append(self._foreign(error))
        return node

    def _exception_class(self, kind: type[BaseException]) -> list[Any]:
        """Python's own by its name; another by its name, its bases and where it is."""
        if raised.is_pythons_own_class(kind):
            return ["exception class", kind.__module__, kind.__qualname__]
        place = self._foreign(kind)
        if place[:1] == ["handle"]:  # it is the other side's
            return place
        return ["own exception class", kind.__name__, self.children(raised.bases(kind)), *place[1:2]]


def _in_a_node(value: float | str) -> Any:
    """An integer, a float or a text as JSON that keeps all of it."""
    if isinstance(value, str):
        return list(map(ord, value))
    return hex(value) if isinstance(value, int) else value


def _added(value: Any) -> list[str]:
    """What the answer's own subclass of a built-in type adds to it, or has of its own."""
    kind = type(value)
    if kind in _SUBCLASSED or not isinstance(value, _SUBCLASSED):
        return []
    if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind:  # Python's own, or numpy's
        return []
    names = set(getattr(value, "__dict__", ()))
    base: type = next(each for each in kind.__mro__ if each in _SUBCLASSED)
    for each in kind.__mro__:
        if each not in base.__mro__:
            names |= vars(each).keys()
    if base is tuple and isinstance(fields := getattr(kind, "_fields", None), tuple):
        names -= {*fields, "__repr__", *(name for name in dir(_named("", ())) if not name.startswith("__"))}
    return sorted(name for name in names if isinstance(name, str) and name not in NO_BEHAVIOUR)


def _is_whole(text: str) -> bool:
    """Whether JSON keeps it: halves of a UTF-16 pair would be joined."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def is_fixed(value: Any) -> bool:
    """Whether it is a number, a text or the like, or a tuple of such: what it holds stays the same."""
    return type(value) in _SCALARS or (type(value) is tuple and all(map(is_fixed, value)))


def _is_mutable(value: Any) -> bool:
    if isinstance(value, (list, dict, set, bytearray, deque)):
        return True
    numpy = sys.modules.get("numpy")
    # subclasses compute otherwise: a masked array leaves values out, a matrix multiplies as matrices do
    return numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in _ARRAYS | {"O"}


def _dict(value: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Whose methods read and write it: an OrderedDict keeps an order of its own."""
    return OrderedDict if isinstance(value, OrderedDict) else dict


def _zone(value: date | time) -> float | str | None:
    """Seconds from UTC, "" without a time zone, None for a zone that has no fixed offset."""
    zone = getattr(value, "tzinfo", None)
    if zone is None:
        return ""
    return zone.utcoffset(None).total_seconds() if type(zone) is timezone else None


def _array(shape: Sequence[int], kind: str) -> Any:
    numpy = sys.modules["numpy"]
    if numpy.dtype(kind).kind not in _ARRAYS | {"O"} or not 0 <= prod(shape) <= 1 << 26:
        raise ValueError("not an array of this wire")
    return numpy.zeros(shape, kind)  # memory of its own alone: `empty` shows what stood there before


# What a mutable object is before it is filled, from the rest of its node.
_EMPTY: dict[str, Callable[..., Any]] = {
    "list": list,
    "set": set,
    "dict": dict,
    "OrderedDict": OrderedDict,
    "Counter": Counter,
    "defaultdict": defaultdict,
    "deque": lambda longest: deque(maxlen=longest),
    "bytearray": bytearray,
    "array": lambda kind, shape: _array(shape, kind),
}


def _fill(own: Any, content: Any, child: Callable[[Any], Any]) -> None:
    """Give a mutable object its content, by its base's own methods."""
    if isinstance(own, dict):
        base = _dict(own)
        if isinstance(own, defaultdict):
            content, name, factory = content
            make: Any = vars(defaultdict)["default_factory"]  # the attribute of a subclass is the other side's
            make.__set__(own, _FACTORIES[name] if name else child(factory))
        base.clear(own)
        for key, value in content:
            base.__setitem__(own, child(key), child(value))
    elif isinstance(own, bytearray):
        own[:] = content.encode("latin-1")
    elif isinstance(own, list):
        list.__setitem__(own, slice(None), [child(item) for item in content])
    elif isinstance(own, set):
        items = [child(item) for item in content]
        if set(items) != own:  # an iteration over it goes on
            set.clear(own)
            set.update(own, items)
    elif isinstance(own, deque):
        deque.clear(own)
        deque.extend(own, [child(item) for item in content])
    elif isinstance(content, str):
        numpy = sys.modules["numpy"]
        own[...] = numpy.frombuffer(base64.b64decode(content), own.dtype).reshape(own.shape)
    elif len(content) == own.size:
        for place, item in zip(sys.modules["numpy"].ndindex(own.shape), content, strict=True):
            own[place] = child(item)
    else:
        raise ValueError("an array of another size")


def _whole(kind: str, parts: list[Any], child: Callable[[Any], Any], foreign: Foreign) -> Any:
    """An immutable value from its node."""
    first: Any = parts[0] if parts else None
    match kind:
        case "int":
            return int(first, 16)
        case "float":
            return float(first)
        case "str":
            return "".join(map(chr, first))
        case "complex":
            return complex(*parts)
        case "bytes":
            return first.encode("latin-1")
        case "exception class":
            return raised.pythons_own(*parts) or Exception
        case "own exception class":
            bases = tuple([child(base) for base in parts[1]])
            return foreign(kind, *parts[2:], first, bases) if parts[2:] else raised.made_class(first, bases)
        case "constant":
            return _CONSTANTS[first]
        case "struct_time":
            return struct_time([child(item) for item in first])
        case "tuple":
            return tuple([child(item) for item in first])
        case "named":
            return _named(parts[1], tuple(parts[2]))([child(item) for item in first])
        case "frozenset":
            return frozenset([child(item) for item in first])
        case "range" | "slice":
            return {"range": range, "slice": slice}[kind](*[child(item) for item in first])
        case "fraction":
            return Fraction(*[child(item) for item in first])
        case "decimal":
            return Decimal(first)
        case "timedelta":
            return timedelta(*first)
        case "datetime" | "date" | "time":
            kinds: dict[str, Any] = {"datetime": datetime, "date": date, "time": time}
            made = kinds[kind].fromisoformat(first)
            return made if parts[1] == "" else made.replace(tzinfo=timezone(timedelta(seconds=parts[1])))
        case "keys":
            return dict.fromkeys([child(item) for item in first]).keys()
        case "values":
            return dict(enumerate([child(item) for item in first])).values()
        case "items":
            return {child(key): child(value) for key, value in first}.items()
        case "text scalar":
            return {"S": sys.modules["numpy"].bytes_, "U": sys.modules["numpy"].str_}[first](child(parts[1]))
        case "scalar":
            numpy = sys.modules["numpy"]
            return numpy.frombuffer(base64.b64decode(first), _array((), parts[1]).dtype)[0]
    return foreign(kind, *[child(part) for part in parts])


@functools.lru_cache(maxsize=256)
def _named(name: str, fields: tuple[str, ...]) -> type:
    """A tuple whose items have names; `namedtuple` would compile source text of the other side's words."""
    places = {field: property(operator.itemgetter(i)) for i, field in enumerate(fields) if field[:1] != "_"}

    def asdict(self: Any) -> dict[str, Any]:
        return dict(zip(fields, self, strict=True))

    def replace(self: Any, **named: Any) -> Any:
        if unknown := named.keys() - set(fields):
            raise ValueError(f"Got unexpected field names: {sorted(unknown)!r}")
        return kind(named.get(field, item) for field, item in zip(fields, self, strict=True))

    def represent(self: Any) -> str:
        return f"{name}({', '.join(f'{field}={item!r}' for field, item in zip(fields, self, strict=True))})"

    own = {"_asdict": asdict, "_replace": replace, "_make": classmethod(lambda kind, items: kind(items))}
    own["__repr__"] = represent
    kind = type(str(name), (tuple,), {"__slots__": (), "_fields": fields, **own, **places})
    return kind
