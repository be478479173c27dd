"""A turn of a stored conversation → a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sftmix_jax.data import meanings, stored
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.stored import Fields, shown
from sftmix_jax.machine.errors import did_you_mean

# In lower case, words joined by `_`
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "ai_assistant": "assistant",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",  # OpenAI's newer name; templates know `system`
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    **dict.fromkeys(("tool_response", "tool_result", "tool_output", "function_response", "function_result"), "tool"),
}
_CALL_ROLES = ("function_call", "tool_call", "tool_calls")  # an assistant's turn whose text is the calls, as JSON
_CALL_LABELS = ("id", "type", "index")
_ROLE, _CONTENT = ("role", "from"), ("content", "value", "text")
_KNOWN = (*_ROLE, *_CONTENT, *meanings.WEIGHTS, *meanings.RENDERED, "tool_calls", "function_call")


def messages(turns: Any, what: str, row: Fields, weight: float = 1.0) -> list[Message]:
    """Turns as messages; `weight` is that of an assistant's turn that has none of its own. Raises BadRow."""
    return [message(turn, row, weight) for turn in stored.items(turns, what)]


def message(turn: Any, row: Fields, weight: float = 1.0) -> Message:
    """A turn, {"role", "content"} or {"from", "value"}, as a message.

    What a template may render besides the text is kept in `Message.fields`; the row notes fields without a meaning.
    Raises BadRow; in a strict row for unknown fields too.
    """
    if not isinstance(turn, Mapping):
        what = "; name a function in `convert` that gives each turn 'role' and 'content'" if not row.strict else ""
        raise BadRow(f"a turn must be an object, this is a {type(turn).__name__}{what}")
    fields = Fields(turn, strict=row.strict)
    role, is_call = _role(fields, row.strict)
    _, content = fields.one(_CONTENT)
    if is_call:
        what = "the turn of a call"
        is_object = isinstance(content, Mapping) and content.get("type") in (None, "function")
        calls, content = tool_calls(content if is_object else stored.text(content, what), what), ""
    else:
        calls = _calls(fields)
    if role == "tool":
        content = _result(turn, content)
    if content is None and not calls and not any(isinstance(turn.get(name), str) for name in _CONTENT):
        key = next((name for name in _CONTENT if name in turn), "content")
        raise BadRow(f"a message whose {key} is not text")
    extra = {
        name: _rendered(name, value)
        for name in meanings.RENDERED
        if (value := fields.take(name)) is not None and value is not False
    }
    if calls:
        if role != "assistant":
            raise BadRow(f"tool_calls in a turn of the role '{role}'")
        extra["tool_calls"] = calls
    own = _weight(fields, role)
    fields.leave_opinions(row if role == "assistant" else None)  # an opinion of a question is none of its answer
    stored.refuse_nested(fields, opinions=role == "assistant")
    stored.refuse_bad_answer(fields)
    fields.finish(_KNOWN)
    row.note_turn(fields)
    said = "" if content is None else stored.text(content, "a message whose content")
    return Message(role, said, own if own is not None else weight if role == "assistant" else 1.0, extra)


def _result(turn: Mapping[str, Any], content: Any) -> str:
    """A tool's result. Raises BadRow for null: what templates write for it differs, and is no result."""
    empty = [turn[name] for name in _CONTENT if turn.get(name) is not None]  # [] and {} are results too
    if content is None and not empty:
        raise BadRow("a 'tool' message without a result: its content is null or missing")
    return stored.result(empty[0] if content is None else content, "a message whose content")


def _role(fields: Fields, converted: bool) -> tuple[str, bool]:
    """The role by our name, and whether the turn's text is a call."""
    name, stored = fields.one(_ROLE)
    if not name:
        has = f"it has {', '.join(map(shown, fields.names()[:5]))}" if fields.names() else "it has no fields"
        who = "`convert` must" if converted else "name a function in `convert` to"
        raise BadRow(f"a turn without a role ({has}); {who} give each turn 'role' and 'content'")
    role = re.sub(r"[\s-]+", "_", stored.strip().lower()) if isinstance(stored, str) else None
    if role in _CALL_ROLES:
        return "assistant", True
    if role not in ROLES:
        raise BadRow(f"unknown role '{shown(stored)}'")
    return ROLES[role], False


def _weight(fields: Fields, role: str) -> float | None:
    """An assistant turn's own weight. Raises BadRow where another turn asks to be trained on."""
    own = stored.weight(fields)
    if role == "assistant" or not own:
        return own if role == "assistant" else None
    raise BadRow(f"a '{role}' turn that is to be trained on (weight, loss or train); only answers are")


def _rendered(name: str, value: Any) -> Any:
    if name in ("tools", "functions", "function_calls"):  # as stored: templates that know them take text too
        return value
    if name == "tool_call_id" and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise BadRow(f"the field '{name}' of a turn is not text")
    return value


def _calls(fields: Fields) -> list[dict[str, Any]]:
    """The calls of an assistant's turn: `tool_calls`, or OpenAI's older `function_call`."""
    calls, call = fields.take("tool_calls"), fields.take("function_call")
    if calls is not None and call is not None:
        raise BadRow("a turn with both tool_calls and function_call")
    if call is not None:
        return tool_calls(call, "function_call")
    return [] if calls is None else tool_calls(calls, "tool_calls")


def tool_calls(value: Any, what: str) -> list[dict[str, Any]]:
    """Calls as transformers' templates take them: {"type": "function", "function": {"name", "arguments": object}}.

    Reads OpenAI's form (arguments as JSON text), bare {"name", "arguments"}, one of them or a list, and JSON text of
    all these. Raises BadRow.
    """
    if isinstance(value, str):
        value = stored.parse(value, what)
    single = isinstance(value, Mapping) and not stored.is_object_of_lists(value)
    calls = [value] if single else stored.items(value, what)
    if not calls:
        raise BadRow(f"{what} holds no call")
    return [_tool_call(stored.parse(call, what) if isinstance(call, str) else call, what) for call in calls]


def _tool_call(call: Any, what: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise BadRow(f"{what} holds a call that is no object")
    if call.get("type") not in (None, "function"):
        raise BadRow(f"{what} holds a call of type '{shown(call['type'])}'")
    bare = not isinstance(call.get("function"), Mapping)
    function = call if bare else call["function"]
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow(f"{what} holds a call without a name")
    key = "parameters" if "parameters" in function and "arguments" not in function else "arguments"
    _refuse_others(function, ("name", key, *_CALL_LABELS), what)
    if not bare:
        _refuse_others(call, ("function", *_CALL_LABELS), what)
    arguments = function.get(key)
    if isinstance(arguments, str):
        arguments = stored.parse(arguments, f"{what}: arguments") if arguments.strip() else {}
    if not isinstance(arguments, Mapping | None):
        raise BadRow(f"{what}: arguments are no object")
    labels = {name: call[name] for name in ("id", "index") if call.get(name) is not None}
    named = {"name": function["name"], "arguments": dict(arguments or {})}
    return {**labels, "type": "function", "function": named}


def _refuse_others(call: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for name, value in call.items():
        if name not in known and value is not None:
            raise BadRow(f"{what}: unknown field '{shown(name)}' of a call; {did_you_mean(str(name), known)}")


def tools(value: Any, what: str) -> list[dict[str, Any]]:
    """Tools as {"type": "function", "function": {"name", …}}.

    Reads a list, one tool, or JSON text of these; bare functions are wrapped. Raises BadRow.
    """
    if isinstance(value, str):
        value = stored.parse(value, what)
    found = []
    single = isinstance(value, Mapping) and not stored.is_object_of_lists(value)
    for tool in [value] if single else stored.items(value, what):
        tool = stored.parse(tool, what) if isinstance(tool, str) else tool
        wrapped = isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
        function = tool["function"] if wrapped else tool
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise BadRow(f"{what} holds a tool without a name")
        found.append(dict(tool) if wrapped else {"type": "function", "function": dict(function)})
    return found
