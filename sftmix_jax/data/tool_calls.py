"""Calls of tools, and the form in which a template takes their arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template

Form = Literal["object", "text"]


def strings(value: Any) -> Iterator[str]:
    """Every string of a field, at any depth, and every key."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def argument_forms(template: Template) -> frozenset[Form]:
    """The forms in which the template takes a call's arguments: an object, or JSON text.

    Given another form, a template writes JSON within JSON, or Python's notation.
    """
    forms: set[Form] = set()
    examples: tuple[tuple[Form, Any], ...] = (("object", {"qzk": "qzv"}), ("text", '{"qzk": "qzv"}'))
    for form, arguments in examples:
        try:
            text = template.render(probe(arguments), TOOLS)
        except BadRow:
            continue
        if "qzk" in text and "qzv" in text and "'qzk'" not in text and '\\"qzk' not in text:
            forms.add(form)
    return frozenset(forms)


TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "qzf",
            "description": "qzd",
            "parameters": {"type": "object", "properties": {"qzk": {"type": "string", "description": "qzp"}}},
        },
    },
)


def probe(arguments: Any) -> list[Message]:
    """A conversation that ends with a call. Some templates want an id of nine letters and digits."""
    call = {"id": "qz1234567", "type": "function", "function": {"name": "qzf", "arguments": arguments}}
    return [Message("user", "qzu"), Message("assistant", "", fields={"tool_calls": [call]})]


def filled(message: Message) -> Message:
    """The message with an argument in each of its calls that has none; the same message where all have some."""
    calls = message.fields.get("tool_calls") or []
    empty = [_takes_an_argument(call) for call in calls]
    if not any(empty):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": {"qzk": "qzv"}}} if is_empty else call
        for call, is_empty in zip(calls, empty, strict=True)
    ]
    return message._replace(fields={**message.fields, "tool_calls": calls})


def _takes_an_argument(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and function.get("arguments") == {}


def in_form(messages: Sequence[Message], forms: frozenset[Form]) -> Sequence[Message]:
    """The messages with their calls' arguments in a form that the template takes, which is their own if it can be.

    Raises BadRow for text that is no JSON.
    """
    if not any(m.fields.get("tool_calls") for m in messages):
        return messages
    return [_formed(m, forms) if m.fields.get("tool_calls") else m for m in messages]


def _formed(message: Message, forms: frozenset[Form]) -> Message:
    calls = []
    for call in message.fields["tool_calls"]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and "arguments" in function:
            call = {**call, "function": {**function, "arguments": _argument(function["arguments"], forms)}}
        calls.append(call)
    return message._replace(fields={**message.fields, "tool_calls": calls})


def _argument(arguments: Any, forms: frozenset[Form]) -> Any:
    if isinstance(arguments, str) and forms == {"object"}:
        try:
            return json.loads(arguments or "{}")
        except ValueError:
            raise BadRow("'arguments' of a tool call are not JSON") from None
    if not isinstance(arguments, str) and forms == {"text"}:
        return json.dumps(arguments, ensure_ascii=False)
    return arguments
