"""What the fields of a config may hold: declared beside each field, checked before anything is read or written.

    every: int = setting(500, Integer(at_least=1))  # steps

`check` walks a tree of such dataclasses and names the first field that is out of its range. A config dataclass may also
have a method `relations(where)`, which yields a message for fields that are sound alone, but not together. Command-line
options use the same ranges (sftmix_jax.machine.options).
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import math
import os
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from sftmix_jax.machine.errors import UserError, did_you_mean

T = TypeVar("T")

MAX_INT = 2**31 - 1  # what an int32 holds: the bound of a whole number without a narrower one
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all control characters but tab and newline


class Range:
    """The values that a field may have."""

    def problems(self, value: Any, where: str) -> Iterator[str]:
        """What is wrong with the value of the field `where`: a line per problem, with path, value and range."""
        if rule := self.broken(value):
            yield f"{where}: {_shown(value)}; {rule}"

    def broken(self, value: Any) -> str:
        """The rule that the value breaks, as `must be …`; empty where it breaks none."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """A value as a command line writes it. Raises ValueError."""
        return text

    def value(self, text: str) -> Any:
        """The value that a text stands for; the text itself where it stands for none, for the range to refuse."""
        try:
            return self.read(text)
        except ValueError:
            return text

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Raises UserError, with the rule and without a place."""
        value = self.value(text)
        if rule := self.broken(value):
            raise UserError(f"{_shown(value)}; {rule}")
        return value

    def described(self) -> str:
        """The range in words, for a list of options."""
        return self.broken(object()).removeprefix("must be ").removeprefix("must ")


@dataclasses.dataclass(frozen=True)
class Integer(Range):
    """A whole number: an int, but no bool."""

    at_least: int
    at_most: int = MAX_INT
    also: tuple[int, ...] = ()  # values outside of the bounds that have a meaning of their own

    def broken(self, value: Any) -> str:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if is_int and (self.at_least <= value <= self.at_most or value in self.also):
            return ""
        bounds = f"at least {self.at_least}"
        if self.at_most != MAX_INT or (is_int and value > self.at_most):
            bounds += f" and at most {self.at_most}"
        bounds += "".join(f", or {value}" for value in self.also)
        return f"must be {bounds}" if is_int else f"must be a whole number (int), {bounds}"

    def read(self, text: str) -> Any:
        return int(text)


@dataclasses.dataclass(frozen=True)
class Number(Range):
    """A finite number: a float or an int, but no bool."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    also: tuple[float, ...] = ()
    hint: str = ""  # what to do instead

    def broken(self, value: Any) -> str:
        finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        within = finite and self.at_least <= value <= self.at_most and self.above < value < self.below
        if within or (finite and value in self.also):
            return ""
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        bounds = " and ".join(f"{name} {bound:g}" for name, bound in named.items() if math.isfinite(bound))
        bounds += "".join(f", or {value:g}" for value in self.also)
        hint = f" ({self.hint})" if self.hint else ""
        if finite:
            return f"must be {bounds}{hint}"
        return f"must be a finite number{', ' if bounds else ''}{bounds}{hint}"

    def read(self, text: str) -> Any:
        return float(text)


@dataclasses.dataclass(frozen=True)
class Flag(Range):
    """True or False."""

    def broken(self, value: Any) -> str:
        return "" if isinstance(value, bool) else "must be True or False"

    def read(self, text: str) -> Any:
        words = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
        return words.get(text.lower(), text)


@dataclasses.dataclass(frozen=True)
class Text(Range):
    """Text that files and command lines can hold."""

    pattern: str = r"(?s).*"  # of the whole text
    rule: str = "must be text"  # what the pattern asks for

    def broken(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            return self.rule
        return "must have no control characters" if _UNPRINTABLE.search(value) else ""


@dataclasses.dataclass(frozen=True)
class Location(Text):
    """A path, or an address in a bucket. On a command line `~` is the user's home folder, also behind a `=`."""

    def read(self, text: str) -> str:
        return os.path.expanduser(text)


# Becomes a part of a path: a folder or file, on a disk or in a bucket.
NAME = Text(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}",
    "must be a name of 1 to 100 letters, digits, '-', '_' and '.', which begins with a letter, a digit or '_'",
)


@dataclasses.dataclass(frozen=True)
class Choice(Range):
    """One of some words."""

    words: Collection[str]

    def broken(self, value: Any) -> str:
        known = list(self.words)
        if isinstance(value, str) and value in known:
            return ""
        listed = f"must be {', '.join(known[:-1])} or {known[-1]}" if len(known) > 1 else f"must be {known[0]}"
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        return f"{listed}; {near}" if near.startswith("did") else listed


@dataclasses.dataclass(frozen=True)
class AnyOf(Range):
    """Within one of some ranges."""

    ranges: tuple[Range, ...]
    rule: str

    def broken(self, value: Any) -> str:
        return self.rule if all(each.broken(value) for each in self.ranges) else ""

    def read(self, text: str) -> Any:
        """A Python literal, or the word of a flag; else the text."""
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
        return next((value for each in self.ranges if not each.broken(value := each.value(text))), text)


@dataclasses.dataclass(frozen=True)
class Items(Range):
    """A tuple or list whose items are within a range, or are configs of a type."""

    each: Range | type
    at_least: int = 0  # items

    @property
    def item(self) -> Range:
        """The range of an item."""
        return _range(self.each)

    def read(self, text: str) -> Any:
        """`a,b`, or a Python literal in brackets → a tuple."""
        if text[:1] in ("(", "["):
            try:
                return tuple(ast.literal_eval(text))
            except (SyntaxError, TypeError) as error:
                raise ValueError(text) from error
        return tuple(self.item.read(part) for part in text.split(",")) if text else ()

    def described(self) -> str:
        return f"any number of items between commas, each {self.item.described()}"

    def problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, tuple | list):
            yield f"{where}: {_shown(value)}; must be a tuple or a list"
            return
        if len(value) < self.at_least:
            yield f"{where}: {_shown(value)}; must have at least {self.at_least} item"
        for i, item in enumerate(value):
            yield from _range(self.each).problems(item, f"{where}[{i}]")


@dataclasses.dataclass(frozen=True)
class Table(Range):
    """A dict whose keys and values are within ranges; the values may be configs of a type."""

    each: Range | type
    keys: Range = dataclasses.field(default_factory=Text)

    @property
    def item(self) -> Range:
        """The range of a value."""
        return _range(self.each)

    def problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where}: {_shown(value)}; must be a dict"
            return
        for key, item in value.items():
            if rule := self.keys.broken(key):
                yield f"{where}: key {_shown(key)}; {rule}"
                continue
            yield from _range(self.each).problems(item, f"{where}.{key}" if key.isidentifier() else f"{where}[{key!r}]")


@dataclasses.dataclass(frozen=True)
class Tree(Range):
    """A config dataclass with every field within its range, and its relations kept."""

    type: Any

    def problems(self, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, self.type):
            yield f"{where}: {_shown(value)}; must be of type {self.type.__name__}"
            return
        fields = {field.name: field for field in dataclasses.fields(self.type)}
        sound = True
        for name in vars(value).keys() - fields.keys():  # a misspelt assignment in a config file
            sound = False
            yield f"{where}.{name}: {self.type.__name__} has no such field; {did_you_mean(name, fields)}"
        for name, field in fields.items():
            held = getattr(value, name)
            if held is None and field.default is None:
                continue
            for problem in range_of(field).problems(held, f"{where}.{name}"):
                sound = False
                yield problem
        if sound and hasattr(value, "relations"):
            yield from value.relations(where)


def within(allowed: Range, meaning: str) -> dict[str, Any]:
    """The metadata of a field with a range: `name: str = dataclasses.field(metadata=within(NAME, "of the run"))`."""
    return {"range": allowed, "meaning": meaning}


def setting(default: T, allowed: Range, meaning: str) -> T:
    """A dataclass field with a default, a range and what it means. A default of None allows None."""
    return dataclasses.field(default=default, metadata=within(allowed, meaning))


def range_of(field: dataclasses.Field[Any]) -> Range:
    """The range of a config's field. Raises TypeError for a field that was declared without one."""
    if "range" in field.metadata:
        return field.metadata["range"]
    if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
        return Tree(field.type)
    raise TypeError(f"the config field '{field.name}' has no range; declare it with sftmix_jax.machine.ranges.setting")


def of(config: type, name: str) -> Range:
    """The range of a config type's field by its name, for a command-line option of the same meaning."""
    return range_of(next(field for field in dataclasses.fields(config) if field.name == name))


def check(config: Any, where: str) -> None:
    """Raises UserError for the first field of a config tree that is out of its range; `where` is the tree's path."""
    for problem in Tree(type(config)).problems(config, where):
        raise UserError(problem)


def _range(each: Range | type) -> Range:
    return each if isinstance(each, Range) else Tree(each)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
