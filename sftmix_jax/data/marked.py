"""A conversation with a mark in each of its values: a second rendering that shows where every value stands in a text.

A string gets a mark behind its last letter, a number or constant becomes a number that stands nowhere else. What the
template writes around the marks must be what it writes around the values themselves.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template

Tools = Sequence[Mapping[str, Any]]

# Fields of a message, and of a call, that only identify it: a template may ignore them without loss.
_LABEL_FIELDS = frozenset({"tool_call_id", "name", "id"})
_LABELS = frozenset({"id", "type", "index"})
_DESCRIBING = ("name", "description")  # of the strings of a tool, those that tell the model what it can call


class Place(NamedTuple):
    """Where a value stands: text[start:stop]."""

    message: int  # -1: of the tools
    start: int
    stop: int
    again: bool = False  # it stands there once more, as a call's name may at the head of its result


class _Owner(NamedTuple):
    message: int
    role: str
    field: str


_TOOLS = _Owner(-1, "tools", "tools")


class _Value(NamedTuple):
    owner: _Owner
    forms: tuple[str, ...]  # in which it may stand in a text
    replaced: bool  # its mark stands in its place, not behind it


def find(
    template: Template, messages: Sequence[Message], tools: Tools, text: str, prompt: bool = False, lossy: str = ""
) -> list[Place]:
    """Where the values of a conversation stand in its rendering, in their order there.

    `prompt`: the text was rendered with a generation prompt. `lossy`: a role whose values may be missing.
    Raises BadRow for a value that is missing or rewritten.
    """
    marks = _Marks(text, messages, tools)
    marked = template.render(marks.messages, marks.tools, prompt)
    places, position, done, lost = [], 0, 0, set(marks.values)
    for match in marks.pattern.finditer(marked):
        mark, around = match.group(), marked[done : match.start()]
        value = marks.values.get(mark)
        if value is None or not text.startswith(around, position):
            break
        position += len(around)
        done = match.end()
        if value.replaced:
            form = next((form for form in value.forms if text.startswith(form, position)), None)
            position += len(form or "")
        else:
            form = next((form for form in value.forms if text.endswith(form, 0, position)), None)
        if form is not None:
            places.append(Place(value.owner.message, position - len(form), position, again=mark not in lost))
            lost.discard(mark)
        elif value.owner.role != lossy:
            raise BadRow(_lost(value))
    for mark in sorted(lost):
        if marks.values[mark].owner.role != lossy:
            raise BadRow(_lost(marks.values[mark]))
    if text[position:] != marked[done:]:
        raise BadRow("the chat template writes other text around some words than around others")
    return places


def _lost(value: _Value) -> str:
    if value.owner == _TOOLS:
        return "the chat template has no place for 'tools'"
    if value.owner.field == "content":
        return f"the chat template leaves out or rewrites words of a '{value.owner.role}' message"
    return f"the chat template has no place for '{value.owner.field}' of this '{value.owner.role}' message"


class _Marks:
    """The conversation with its marks, and what each of them stands for."""

    def __init__(self, text: str, messages: Sequence[Message], tools: Tools):
        self.values: dict[str, _Value] = {}
        self._salt = next(n for n in itertools.count() if f"qz{n}x" not in text and f"{915_000 + n}" not in text)
        self.pattern = re.compile(rf"qz{self._salt}x\d{{5}}zq|{915_000 + self._salt}\d{{5}}")
        self.messages = [self._message(i, message) for i, message in enumerate(messages)]
        self.tools = [self._described(tool) for tool in tools]

    def _message(self, i: int, message: Message) -> Message:
        fields = {
            name: value if name in _LABEL_FIELDS else self._value(value, _Owner(i, message.role, name))
            for name, value in message.fields.items()
        }
        # A tool's result may be written as JSON; what a user or the model said may not.
        content = self._text(message.content, _Owner(i, message.role, "content"), as_json=message.role == "tool")
        return message._replace(content=content, fields=fields)

    def _value(self, value: Any, owner: _Owner, argument: bool = False) -> Any:
        """A field's value with its marks. An `argument` of a call is all content, its keys and its nulls too."""
        if isinstance(value, str):
            return self._text(value, owner)
        if isinstance(value, list | tuple):
            return [self._value(item, owner, argument) for item in value]
        if isinstance(value, Mapping) and argument:
            return {self._text(key, owner): self._value(item, owner, True) for key, item in value.items()}
        if isinstance(value, Mapping):
            return {
                key: item if key in _LABELS else self._value(item, owner, key == "arguments")
                for key, item in value.items()
            }
        return value if value is None and not argument else self._constant(value, owner)

    def _described(self, value: Any) -> Any:
        """A tool with marks in names, descriptions and the names of parameters.

        Its other strings (types, enumerations) decide how some templates write it.
        """
        if isinstance(value, list | tuple):
            return [self._described(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        properties = value.get("properties")
        names = {name: self._text(name, _TOOLS) for name in properties} if isinstance(properties, Mapping) else {}
        tool = {}
        for key, item in value.items():
            if key in _DESCRIBING and isinstance(item, str):
                item = self._text(item, _TOOLS)
            elif key == "properties" and names:
                item = {names[name]: self._described(schema) for name, schema in item.items()}
            elif key == "required" and isinstance(item, list | tuple):
                item = [names.get(name, name) if isinstance(name, str) else name for name in item]
            else:
                item = self._described(item)
            tool[key] = item
        return tool

    def _text(self, text: Any, owner: _Owner, as_json: bool = True) -> Any:
        words = text.strip() if isinstance(text, str) else ""  # a key may be something else
        if not words:
            return text
        forms = (words, json.dumps(words, ensure_ascii=False)[1:-1], json.dumps(words)[1:-1])[: 3 if as_json else 1]
        mark = self._new(f"qz{self._salt}x{{:05}}zq", _Value(owner, forms, replaced=False))
        end = len(text.rstrip())
        return text[:end] + mark + text[end:]

    def _constant(self, value: Any, owner: _Owner) -> Any:
        forms = tuple(dict.fromkeys((json.dumps(value), str(value))))
        return int(self._new(f"{915_000 + self._salt}{{:05}}", _Value(owner, forms, replaced=True)))

    def _new(self, form: str, value: _Value) -> str:
        mark = form.format(len(self.values))
        self.values[mark] = value
        return mark
