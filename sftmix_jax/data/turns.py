"""Where a rendered conversation holds what: each message's words, and what the model itself is to write.

All of it is found by position, by comparing renderings; no text of a template is searched for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sftmix_jax.data import marked
from sftmix_jax.data.marked import Place, Tools
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template

# What templates mark turns with: <|im_end|>, </s>, <<SYS>>, [INST], [|user|]
MARK = re.compile(r"<<?[^<>\s]{1,64}>>?|\[\|[^\[\]\s]{1,64}\|\]|\[/?[A-Za-z]*[A-Z]{2}[A-Z_]*\]")


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
    rendered as they are when they are the last ones, or in which another message stands.
    """
    text = template.render(messages, tools)
    places = marked.find(template, messages, tools, text)
    turns = [_turn(template, messages, tools, text, places, i) for i, m in enumerate(messages) if m.role == "assistant"]
    position = 0
    for turn in turns:
        inside = {place.message for place in places if turn.start < place.stop and place.start < turn.stop}
        own = [place for place in places if place.message == turn.message]
        if inside != {turn.message} or turn.start < position or own[0].start < turn.start or turn.stop < own[-1].stop:
            raise BadRow("the chat template writes an assistant message elsewhere than its generation prompt says")
        position = turn.stop
    return text, turns


def _turn(
    template: Template, messages: Sequence[Message], tools: Tools, text: str, places: Sequence[Place], i: int
) -> Turn:
    own = [place for place in places if place.message == i]
    if not own:
        raise BadRow("an assistant message without words")
    prompt = template.render(messages[:i], tools, prompt=True)
    start = len(prompt)
    if not text.startswith(prompt):
        # What the answer's own words share with the generation prompt is the answer's.
        start = min(shared_head(prompt, text), own[0].start)
        # The generation prompt alone may differ; the conversation before it must be the same.
        if start < len(prompt[: shared_head(prompt, template.render(messages[:i], tools))].rstrip()):
            raise BadRow("the chat template renders earlier messages differently once others follow")
    words = own[-1].stop
    stop = words + len(_end(template, messages, tools, text[words:], i).rstrip())
    return Turn(i, start, stop, text[words:stop], prompt[start:])


def _end(template: Template, messages: Sequence[Message], tools: Tools, rest: str, i: int) -> str:
    """What ends the turn of message i, with the white space that separates it from the next one.

    `rest`, what follows its words, and what follows them where the message is the last one, both begin with it.
    """
    if i + 1 == len(messages):
        return rest
    cut = messages[: i + 1]
    alone = template.render(cut, tools)
    words = max(place.stop for place in marked.find(template, cut, tools, alone) if place.message == i)
    return rest[: shared_head(alone[words:], rest)]


def always_asks(template: Template, messages: Sequence[Message]) -> bool:
    """Whether the template writes its generation prompt without being asked, behind an answer that ends a conversation.

    `messages`: a conversation with one answer, its last message. Raises BadRow where the template cannot hold it.
    """
    asked, i = messages[:-1], len(messages) - 1
    if template.render(asked) != template.render(asked, prompt=True):
        return False
    followed = [*messages, Message("user", "qz0009zq")]
    text, longer = template.render(messages), template.render(followed)
    last, middle = (
        rendering[max(place.stop for place in marked.find(template, talk, (), rendering) if place.message == i) :]
        for talk, rendering in ((messages, text), (followed, longer))
    )
    header = last[shared_head(last, middle) :]
    return bool(header.strip()) and longer.endswith(header)


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
