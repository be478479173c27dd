"""Where a rendered conversation holds what: each message's words, and what the model itself is to write.

All of it is found by position, by comparing renderings; no text of a template is searched for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template
from sftmix_jax.data.tool_calls import reaches, without_field

Tools = Sequence[Mapping[str, Any]]

# What templates mark turns with: <|im_end|>, </s>, <<SYS>>, [INST], [|user|]
MARK = re.compile(r"<<?[^<>\s]{1,64}>>?|\[\|[^\[\]\s]{1,64}\|\]|\[/?[A-Za-z]*[A-Z]{2}[A-Z_]*\]")
# Fields that identify a message and that a template may ignore without loss.
_LABELS = frozenset({"tool_call_id", "name", "id"})


class Turn(NamedTuple):
    """What the model itself writes as one message: text[start:stop], from the generation prompt to the end of turn."""

    message: int
    start: int
    stop: int
    end: str  # what follows its last word, up to `stop`; empty where the template ends no turn
    opened: str  # what the generation prompt goes on with where this turn does not: `<think>`


def find(template: Template, messages: Sequence[Message], tools: Tools = ()) -> tuple[str, list[Turn]]:
    """The conversation's text and its assistant turns.

    Raises BadRow for words, fields or tools that the text does not hold as they are, and for turns that are not
    rendered as they are when they are the last ones.
    """
    text = template.render(messages, tools)
    _check_words(template, messages, tools, text)
    _check_fields(template, messages, tools, text)
    turns = [_turn(template, messages, tools, text, i) for i, m in enumerate(messages) if m.role == "assistant"]
    position = 0
    for turn in turns:
        words = messages[turn.message].content.strip()
        if turn.start < position or words not in text[turn.start : turn.stop]:
            raise BadRow("the chat template writes an assistant message elsewhere than its generation prompt says")
        position = turn.stop
    return text, turns


def check_present(messages: Sequence[Message], text: str) -> None:
    """Raise BadRow for words that the text does not hold."""
    for message in messages:
        if message.content.strip() not in text and not _escaped(message, text):
            raise BadRow(_lost(message))


def sentinels(messages: Sequence[Message]) -> list[Message]:
    """The same messages with words that stand nowhere else."""
    return [m._replace(content=f"qz{i:04}zq") if m.content.strip() else m for i, m in enumerate(messages)]


def _check_words(template: Template, messages: Sequence[Message], tools: Tools, text: str) -> None:
    """Words may lose white space at their ends, and a tool's may be escaped as JSON; all else is a loss."""
    check_present(messages, text)
    marked = sentinels(messages)
    check_present(marked, template.render(marked, tools))


def _escaped(message: Message, text: str) -> bool:
    return message.role == "tool" and reaches(message.content, text)


def _lost(message: Message) -> str:
    return f"the chat template leaves out or rewrites words of a '{message.role}' message"


def _check_fields(template: Template, messages: Sequence[Message], tools: Tools, text: str) -> None:
    """Every field of a message, and the tools, must show in the text."""
    for i, message in enumerate(messages):
        for name, value in message.fields.items():
            if name in _LABELS or value in (None, "", [], {}):
                continue
            if _same(template, without_field(messages, i, name), tools, text) or not reaches(value, text):
                raise BadRow(f"the chat template has no place for '{name}' ({message.role} message)")
    if tools and (_same(template, messages, (), text) or not all(reaches(tool, text, names=True) for tool in tools)):
        raise BadRow("the chat template has no place for 'tools'")


def _same(template: Template, messages: Sequence[Message], tools: Tools, text: str) -> bool:
    """Whether another conversation has the same text; one that the template refuses has not."""
    try:
        return template.render(messages, tools) == text
    except BadRow:
        return False


def _turn(template: Template, messages: Sequence[Message], tools: Tools, text: str, i: int) -> Turn:
    prompt = template.render(messages[:i], tools, prompt=True)
    start = len(prompt)
    if not text.startswith(prompt):
        start = shared_head(prompt, text)
        # The generation prompt alone may differ; the conversation before it must be the same.
        if start < len(prompt[: shared_head(prompt, template.render(messages[:i], tools))].rstrip()):
            raise BadRow("the chat template renders earlier messages differently once others follow")
    words, stop = _close(template, messages, tools, text, i, start)
    return Turn(i, start, stop, text[words:stop], prompt[start:])


def _close(
    template: Template, messages: Sequence[Message], tools: Tools, text: str, i: int, start: int
) -> tuple[int, int]:
    """Where the words of message i end, and where its turn does.

    What follows the words, in this text and where the message is the last one, begins with the end of turn. White space
    behind it only separates turns.
    """
    words = len(text) - _unmoved(template, messages, tools, text, i)
    rest = text[words:]
    if i + 1 < len(messages):
        cut = messages[: i + 1]
        alone = template.render(cut, tools)
        tail = alone[len(alone) - _unmoved(template, cut, tools, alone, i) :]
        rest = rest[: shared_head(tail, rest)]
    return words, max(start, words + len(rest.rstrip()))


def _unmoved(template: Template, messages: Sequence[Message], tools: Tools, text: str, i: int) -> int:
    """How many characters at the text's end stay when message i gets other words."""
    message = messages[i]
    words = message.content.rstrip()
    letter = "z" if words.endswith("q") else "q"
    if words:
        other = message._replace(content=words + letter)
    else:
        other = message._replace(fields=_longer(dict(message.fields)))
    changed = template.render([*messages[:i], other, *messages[i + 1 :]], tools)
    return shared_tail(text, changed)


def _longer(value: Any) -> Any:
    """The same fields with a letter more in their texts, and in the arguments of calls: not in what others refer to."""
    if isinstance(value, str):
        return value + "q"
    if isinstance(value, Mapping) and "arguments" in value:
        arguments = value["arguments"]
        longer = {**arguments, "qzk": "q"} if isinstance(arguments, Mapping) else _longer(arguments)
        return {**value, "arguments": longer}
    if isinstance(value, Mapping):
        return {key: item if key in ("id", "type") else _longer(item) for key, item in value.items()}
    return [_longer(item) for item in value] if isinstance(value, list | tuple) else value


def shared_head(one: str, other: str) -> int:
    """The length of the beginning that two texts share, without the half of a mark."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    for text in (one, other):
        for mark in MARK.finditer(text, max(0, low - 80)):
            if mark.start() < low < mark.end():
                low = mark.start()
    return low


def shared_tail(one: str, other: str) -> int:
    """The length of the end that two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[-middle:] == other[-middle:]:
            low = middle
        else:
            high = middle - 1
    return low
