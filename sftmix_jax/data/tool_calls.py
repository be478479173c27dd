"""Fields of messages that templates render: whether they reach the text, and in which form arguments do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template

Form = Literal["object", "text"]
_LABELS = ("id", "type", "index")


def reaches(value: Any, text: str, names: bool = False) -> bool:
    """Whether every string of a field stands in the text, as it is or escaped as JSON; with `names`, every name."""
    for leaf in strings(value, names):
        plain, escaped, ascii_only = leaf.strip(), json.dumps(leaf, ensure_ascii=False)[1:-1], json.dumps(leaf)[1:-1]
        if not any(form in text for form in (plain, escaped, ascii_only)) and not _as_json(leaf, text):
            return False
    return True


def strings(value: Any, names: bool = False) -> Iterator[str]:
    """Every string of a field but for labels; with `names`, the values of `name` alone."""
    if isinstance(value, str):
        if not names:
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if names and key == "name" and isinstance(item, str):
                yield item
            elif names and key == "parameters":
                continue
            elif key not in _LABELS:
                yield from strings(item, names)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item, names)


def _as_json(leaf: str, text: str) -> bool:
    """A text that is JSON may be written with other white space."""
    try:
        value = json.loads(leaf)
    except ValueError:
        return False
    return isinstance(value, dict | list) and reaches(value, text)


def without_field(messages: Sequence[Message], i: int, name: str) -> list[Message]:
    """The messages without one field of one of them."""
    fields = {key: value for key, value in messages[i].fields.items() if key != name}
    return [*messages[:i], messages[i]._replace(fields=fields), *messages[i + 1 :]]


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
            "name": "qzf", "description": "qzd",
            "parameters": {"type": "object", "properties": {"qzk": {"type": "string", "description": "qzp"}}},
        },
    },
)  # fmt: skip


def probe(arguments: Any) -> list[Message]:
    """A conversation that ends with a call. Some templates want an id of nine letters and digits."""
    call = {"id": "qz1234567", "type": "function", "function": {"name": "qzf", "arguments": arguments}}
    return [Message("user", "qzu"), Message("assistant", "", fields={"tool_calls": [call]})]


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
