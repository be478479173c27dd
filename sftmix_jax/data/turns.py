"""Where a rendered conversation holds what: each message's words, and what the model itself is to write.

All of it is found by position, by comparing renderings; no text of a template is searched for.

White space that a template adds or leaves out around what is not trained on (a tool's result, a question, a system
message) is no loss, also where it depends on what follows. Within an answer, up to its end of turn, it is one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from sftmix_jax.data import marked, tool_calls
from sftmix_jax.data.marked import Place, Tools
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template

# What templates mark turns with: <|im_end|>, </s>, <<SYS>>, [INST], [|user|]
MARK = re.compile(r"<<?[^<>\s]{1,64}>>?|\[\|[^\[\]\s]{1,64}\|\]|\[/?[A-Za-z]*[A-Z]{2}[A-Z_]*\]")

_PIECE = re.compile(r"<[^<>\n]+>|\[[^\[\]\n]+\]|\w+")  # of what stands between turns: a mark or a word
_BRACKETS = re.compile(r"<[^<>\n]{1,64}>|\[[^\[\]\n]{1,64}\]")
_QUESTION = Message("user", "qz0009zq")


class Turn(NamedTuple):
    """What the model itself writes as one message: text[start:stop], from the generation prompt to the end of turn."""

    message: int
    start: int
    stop: int
    end: str  # what follows its last word or call, up to `stop`; empty where the template ends no turn
    opened: str  # what the generation prompt goes on with where this turn does not: `<think>`


def find(template: Template, messages: Sequence[Message], tools: Tools = ()) -> tuple[str, list[Turn]]:
    """The conversation's text and its assistant turns.

    Raises BadRow for words, fields or tools that the text does not hold as they are, and for turns that are not
    rendered as they are when they are the last ones, or in which another message stands.
    """
    text = template.render(messages, tools)
    places = marked.find(template, messages, tools, text)
    turns: list[Turn] = []
    position = 0
    for i in (i for i, message in enumerate(messages) if message.role == "assistant"):
        turn = _turn(template, messages, tools, text, places, i, turns)
        turns.append(turn)
        inside = {place.message for place in places if turn.start < place.stop and place.start < turn.stop}
        own = _own(places, turn.message)
        # The words may begin in the generation prompt, as `<think>` does: what stands there is given, not learned.
        given = own[0].start < turn.start and (turn.opened or own[0].stop <= turn.start)
        words = turn.stop - len(turn.end)
        repeated = any(place.again and words <= place.start < turn.stop for place in places)
        if inside != {turn.message} or turn.start < position or given or repeated or turn.stop < own[-1].stop:
            raise BadRow("the chat template writes an assistant message elsewhere than its generation prompt says")
        position = turn.stop
    return text, turns


def _turn(
    template: Template,
    messages: Sequence[Message],
    tools: Tools,
    text: str,
    places: Sequence[Place],
    i: int,
    earlier: Sequence[Turn],
) -> Turn:
    own = _own(places, i)
    if not own:
        raise BadRow("an assistant message without words")
    prompt = template.render(messages[:i], tools, prompt=True)
    start = given = len(prompt)
    if not text.startswith(prompt):
        # The generation prompt alone may differ; the conversation before it must be the same.
        before = len(prompt[: shared_head(prompt, template.render(messages[:i], tools))].rstrip())
        start, given = _aligned(text, prompt, before, earlier)
        # What the answer's own words share with the generation prompt is the answer's.
        surplus = max(0, start - own[0].start)
        start, given = start - surplus, given - surplus
        if given < before:
            raise BadRow("the chat template renders earlier messages differently once others follow")
    if i and messages[i - 1].role == "assistant":  # some templates write a generation prompt behind questions alone
        start = own[0].start
    words = own[-1].stop
    rest = text[words:]
    if i + 1 < len(messages):
        end = rest[: shared_head(_behind(template, messages[: i + 1], tools, i), rest)]
    else:
        end = rest
        header = text[max((place.stop for place in places if place.message < i), default=0) : own[0].start]
        _refuse_prompt(template, messages, tools, rest, header)
    stop = words + len(end.rstrip())
    end = text[_end_of_call(template, messages, tools, text, words, i) : stop]
    if not _begins_questions(messages, text, places).isdisjoint(_PIECE.findall(end)):
        raise BadRow("the chat template begins a question behind the last answer, which would be trained on")
    return Turn(i, start, stop, end, prompt[given:])


def _aligned(text: str, prompt: str, before: int, turns: Sequence[Turn]) -> tuple[int, int]:
    """How far two texts are the same, by places in both.

    White space outside of turns may differ, up to the place `before` in the prompt.
    """
    at = given = 0
    while True:
        shared = shared_head(text[at:], prompt[given:])
        at, given = at + shared, given + shared
        skipped = [len(rest) - len(rest.lstrip()) for rest in (text[at:], prompt[given:])]
        if given >= before or not any(skipped) or any(turn.start < at < turn.stop for turn in turns):
            return at, given
        at, given = at + skipped[0], given + skipped[1]


def _behind(template: Template, messages: Sequence[Message], tools: Tools, i: int, lossy: str = "") -> str:
    """What follows the words of message i where these messages are the whole conversation. Raises BadRow."""
    text = template.render(messages, tools)
    places = marked.find(template, messages, tools, text, lossy=lossy)
    own = _own(places, i)
    if not own:
        raise BadRow("the chat template leaves out an answer once a question follows")
    return text[own[-1].stop :]


def _end_of_call(template: Template, messages: Sequence[Message], tools: Tools, text: str, words: int, i: int) -> int:
    """Where message i ends in the text: at `words`, its last value, or behind a last call without arguments.

    Such a call has no value to look for behind its name. What follows it is what follows one with arguments.
    """
    filled = tool_calls.filled(messages[i])
    if filled is messages[i]:
        return words
    behind = _behind(template, [*messages[:i], filled, *messages[i + 1 :]], tools, i)
    pairs = zip(reversed(text[words:]), reversed(behind), strict=False)
    cut = len(text) - sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return next((mark.start() for mark in MARK.finditer(text, words) if mark.start() < cut < mark.end()), cut)


def _own(places: Sequence[Place], i: int) -> list[Place]:
    """Where the values of message i stand for the first time."""
    return [place for place in places if place.message == i and not place.again]


def _refuse_prompt(template: Template, messages: Sequence[Message], tools: Tools, rest: str, header: str) -> None:
    """Raise BadRow where `rest`, what follows the last answer, holds the next one's generation prompt, unasked for.

    What a question behind the answer leaves of `rest` ends the turn. Of what is more, nothing may be what the template
    writes between turns (`header`: before this answer); an end of sequence is.
    """
    try:
        behind = _behind(template, [*messages, _QUESTION], tools, len(messages) - 1, lossy="assistant")
        ended = shared_head(rest, behind)
        between = _PIECE.findall(header + behind.partition(_QUESTION.content)[0])
    except BadRow:  # the template holds no question behind an answer
        ended, between = 0, _PIECE.findall(header)[-1:]
    more = {piece.group() for piece in _PIECE.finditer(rest) if piece.end() > ended}
    if taken := (more & set(between)) - {template.end_of_sequence}:
        raise BadRow(
            f"the chat template writes '{max(taken, key=len)}' behind the last answer, as it does between turns, which "
            "would be trained on: write it under {% if add_generation_prompt %} alone"
        )


def _begins_questions(messages: Sequence[Message], text: str, places: Sequence[Place]) -> set[str]:
    """The marks and words that stand before a question's words and not behind one's: `user`, `[INST]`."""
    before, behind, asked = set(), set(), [m.role == "user" for m in messages]
    borders = [0, *(border for place in places for border in (place.start, place.stop)), len(text)]
    for k, place in enumerate(places):
        if place.message >= 0 and asked[place.message]:
            before |= set(_PIECE.findall(text[borders[2 * k] : place.start])[-1:])
            behind |= set(_PIECE.findall(text[place.stop : borders[2 * k + 3]])[:1])
    return before - behind


def shared_head(one: str, other: str) -> int:
    """The length of the beginning that two texts share, without the half of a mark."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    for text, pattern in itertools.product((one, other), (MARK, _BRACKETS)):
        for mark in pattern.finditer(text, max(0, low - 80)):
            if mark.start() < low < mark.end():
                low = mark.start()
    return low
