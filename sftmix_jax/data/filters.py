"""Which conversations are left out: what nothing can be learned from, and what the source was told to leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftmix_jax.data import tagger, user_functions
from sftmix_jax.data.messages import BadRow, LeftOut, Message
from sftmix_jax.machine.errors import UserError, did_you_mean

Tags = Callable[[Mapping[str, Any], Sequence[Message]], set[str]]  # of a row and its messages


def check(messages: Sequence[Message]) -> None:
    """Raise BadRow for a conversation that nothing can be learned from."""
    if messages and messages[0].role == "text":
        if not messages[0].content.strip():
            raise BadRow("empty text")
        answers = list(messages)
    else:
        answers = [message for message in messages if message.role == "assistant"]
        if not answers:
            raise BadRow("no answer")
        if any(not message.content.strip() and "tool_calls" not in message.fields for message in answers):
            raise BadRow("an empty answer")
        if messages[0].role == "assistant":
            raise BadRow("starts with an answer")
        if any(message.role == "user" and not message.content.strip() for message in messages):
            raise BadRow("an empty question")
    if not any(message.weight > 0 for message in answers):
        raise BadRow("nothing to train on: every answer has weight 0")


def leave_out(without: str, tagger_spec: str) -> Callable[[Mapping[str, Any], Sequence[Message]], None]:
    """A function that raises LeftOut for a row with any of the tags in `without`, and BadRow where it has none."""
    unwanted = {tag.strip() for tag in without.split(",") if tag.strip()}
    if not unwanted:
        return lambda row, messages: None
    if not tagger_spec and (unknown := sorted(unwanted - {*tagger.TAGS})):
        near = did_you_mean(unknown[0], tagger.TAGS)
        raise UserError(f"without: the built-in tagger has no tag '{unknown[0]}'; {near}")
    tags = _tags_by(tagger_spec)

    def check_tags(row: Mapping[str, Any], messages: Sequence[Message]) -> None:
        if found := unwanted & tags(row, messages):
            raise LeftOut(f"tagged {', '.join(sorted(found))}")

    return check_tags


def _tags_by(spec: str) -> Tags:
    """`Source.tagger` as a function. Its tags are text split at commas, or a list of texts; else it raises BadRow."""
    kind, _, column = spec.partition(":")
    if not spec:
        return lambda row, messages: tagger.tags(messages)
    if kind == "column":

        def stored(row: Mapping[str, Any], messages: Sequence[Message]) -> set[str]:
            if column not in row:
                raise BadRow(f"no tags in column '{column}'")
            return _tags(row[column], f"column '{column}'")

        return stored
    function = user_functions.load("tagger", spec)

    return lambda row, messages: _tags(user_functions.call("tagger", function, row), "the tagger")


def _tags(value: Any, what: str) -> set[str]:
    if value is None:
        return set()
    found = value.split(",") if isinstance(value, str) else list(value) if hasattr(value, "__iter__") else [value]
    if not all(isinstance(tag, str) for tag in found):
        raise BadRow(f"{what} gives tags that are no text")
    return {tag.strip() for tag in found if tag.strip()}
